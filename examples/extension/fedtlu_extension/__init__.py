"""Adds parts to fedtlu-fast, one file each, without editing fedtlu-fast."""
