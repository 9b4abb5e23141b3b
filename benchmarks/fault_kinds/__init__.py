"""Holds the kinds of faults that `benchmarks/faults.py` injects into runs, one file per family."""
