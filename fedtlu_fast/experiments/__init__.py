"""Experiments of many runs: comparisons, the papers' grids, references, and estimates of what a run needs."""
