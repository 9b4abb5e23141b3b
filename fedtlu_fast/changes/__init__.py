"""Scores the change of a model between two states, by layer and by block, and applies the chosen blocks.

`files` and `memory` open models, `matching` pairs the tensors of the two by name, `buffers` finds the tensors
that are not layers, `scored` computes the scores, `ranking` turns the result into rows, and `update` chooses
blocks and applies their change; it is imported from there, because it loads all selectors.
"""

from fedtlu_fast.changes.scored import ScoredChange, score

__all__ = ["ScoredChange", "score"]
