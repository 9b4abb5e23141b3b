"""The parts of this library inside other tools: Flower."""
