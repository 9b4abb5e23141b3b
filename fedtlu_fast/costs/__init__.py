"""Computes the bytes and floating-point operations of every method."""
