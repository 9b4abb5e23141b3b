"""A model before and after a change -> which layers and blocks changed in which way, and a part of it.

`files` and `memory` open models, `matching` finds which tensor of one is which of the other, `buffers` says
which tensors are no layers, `scored` brings them together, `ranking` puts the result in rows, and `update`
chooses blocks of it and applies them.
"""

from fedtlu_fast.changes.scored import ScoredChange, score
from fedtlu_fast.changes.update import apply_, choose

__all__ = ["ScoredChange", "apply_", "choose", "score"]
