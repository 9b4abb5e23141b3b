"""From a text source to clients that each hold their own samples."""
