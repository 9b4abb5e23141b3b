"""The operations on flat vectors, and the backends that run them.

`dispatch` is the door: it picks a backend, has the arguments checked once for all of them (`checks`), and calls
`reference` (float64 torch), `native` (C++) or `triton` (GPU).
"""
