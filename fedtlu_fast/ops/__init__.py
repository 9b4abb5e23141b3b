"""The operations on flat vectors, and the backends that run them.

Callers use `dispatch`: it picks a backend, checks the arguments (`checks`, once for all backends), and calls
`reference` (float64 torch), `native` (C++) or `triton` (GPU).
"""
