"""Pictures: each module draws one figure from rows, and writes no file."""
