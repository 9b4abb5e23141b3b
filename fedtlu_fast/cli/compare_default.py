"""What ``fedtlu compare`` runs if it is asked for nothing."""

PRESET = "one-block"
OUR_BEST = "fedtlu:pairs+pooling=pooled"
"""The score that we recommend, as the name of an arm; see docs/study.md."""
SELECTORS = f"fedtlu,{OUR_BEST},random,last,full"
"""The paper's score, ours, and the choices that look at no score."""
SEEDS = 2
