"""The operations on flat vectors and the backends that run them.

Callers use `dispatch`. It checks the arguments (in `checks`, once for all backends) and calls the backend
that `backends` chooses: `reference` (float64 torch), `native` (C++) or `triton` (GPU).
"""
