"""Files of run directories: reading what cannot be trusted, writing so that a kill loses nothing."""
