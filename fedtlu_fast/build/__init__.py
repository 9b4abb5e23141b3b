"""The composition root, which turns settings into objects; no room below knows settings."""
