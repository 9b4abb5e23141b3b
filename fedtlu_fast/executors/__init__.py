"""What trains the clients of a round: this process, several, or many machines."""
