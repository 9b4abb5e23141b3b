"""The operations on flat vectors and the backends that run them.

Callers use `dispatch`. It checks the arguments (in `checks`, once for all backends), picks a backend and
calls it: `reference` (float64 torch), `native` (C++) or `triton` (GPU).
"""
