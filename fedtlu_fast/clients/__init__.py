"""The engines of local training: they train clients on their own samples, from the global model."""
