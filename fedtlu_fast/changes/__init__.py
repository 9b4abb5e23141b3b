"""Two checkpoints of a model -> which layers and blocks changed in which way.

`files` opens them, `matching` finds which tensor of one is which of the other, `buffers` says which tensors
are no layers, and `score` brings them together.
"""

from fedtlu_fast.changes.score import ScoredChange, score_checkpoints

__all__ = ["ScoredChange", "score_checkpoints"]
