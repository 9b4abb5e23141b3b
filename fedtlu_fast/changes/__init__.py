"""Scores the change of a model between two states, by layer and by block, and applies the chosen blocks.

`opening` opens models: `files` (`safetensors_file`, `pickled`, `gguf_file`), `adapters`, `hub` and `memory`.
`stored` refers to their tensors, `matching` compares names, `buffers` finds tensors that are not layers,
`pairing` pairs layers, `streaming` reads them and computes statistics, and `scored` computes the scores.
`result` gives them as rows, which `kinds` and `ranking` make and `picture` draws. `update` chooses blocks and
applies their change; it is imported from there, because it loads all selectors.
"""

from fedtlu_fast.changes.result import ScoredChange
from fedtlu_fast.changes.scored import score

__all__ = ["ScoredChange", "score"]
