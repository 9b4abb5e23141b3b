"""What a client does with the global model: local training, one client at a time."""
