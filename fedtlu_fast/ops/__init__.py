"""The operations on flat vectors, and the backends that run them.

`dispatch` is the door: it picks a backend, has the arguments checked (`checks`, once for all backends), and
calls `reference` (float64 torch), `native` (C++) or `triton` (GPU).
"""
