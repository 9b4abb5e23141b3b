"""The three operations on flat vectors, and the backends that run them.

`dispatch` is the door: it picks a backend, checks the arguments once for all of them, and calls
`reference` (float64 torch), `native` (C++) or `triton` (GPU).
"""
