"""Triton kernels of the package: a file for each operation, with its launcher, and what they share."""
