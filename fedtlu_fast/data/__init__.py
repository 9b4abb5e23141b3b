"""The data of a federation: sources are read, encoded as tensors and dealt to clients."""
