"""Bytes and floating-point operations of every method."""
