"""Differential privacy of clients: what a round releases, what it costs, and the noise that it needs."""
