"""Data sets through `datasets`: where they are, which splits they have, and how each form is read."""
