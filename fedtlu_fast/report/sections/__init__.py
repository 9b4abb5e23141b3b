"""Sections of pages: each module makes one from what runs left, as a value that a template shows."""
