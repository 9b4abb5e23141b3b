"""Triton kernels of the package, one operation a file; each file holds the kernels and their launcher."""
