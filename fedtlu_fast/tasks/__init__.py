"""What a federation learns: a model, its loss on a batch, and its test."""
