"""Triton kernels of the package: one file per operation with its launcher, and the files they share."""
