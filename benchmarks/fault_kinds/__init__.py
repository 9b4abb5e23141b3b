"""Kinds of faults that `benchmarks/faults.py` puts into runs, one file a family."""
