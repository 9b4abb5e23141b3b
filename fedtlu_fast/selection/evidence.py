"""What a selector sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring import LayerStats
from fedtlu_fast.scoring.block_metrics import Change

Mask = NDArray[np.bool_]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """What a selector may look at. Do not change anything in it.

    Attributes:
        layout: blocks and groups.
        metrics: by name, [R, B] float64, larger is better; all that the selector's `needs` names. Of one that
            is the same for all clients, [1, B].
        generator: this round's source of chance, a pure function of seed and round.
        rows: R, the number of choices to make: 1 for the server, C for C clients.
        round: which round it is, from 1.
        generators: one for each row, where every client draws for itself; else empty.
        change: what is chosen from: the aggregated change on the server; a client's own change where the
            selector's moment is ``by_change``. None before clients have trained.
        parameters: [P] float32, the global parameters that the round started from; None outside of a run.
        last_choice: [B] bool, the blocks that were applied in the round before; None before round 2.
        warmup_rounds: so many first rounds of the run update every block and ask no selector.
    """

    layout: ParameterLayout
    metrics: Mapping[str, Vector]
    generator: np.random.Generator
    rows: int = 1
    round: int = 1
    generators: Sequence[np.random.Generator] = ()
    change: Change | None = None
    parameters: Tensor | None = None
    last_choice: Mask | None = None
    warmup_rounds: int = 0

    @property
    def stats(self) -> LayerStats | None:
        """[L], statistics of every layer's change; None before clients have trained."""
        return None if self.change is None else self.change.stats

    @property
    def client_stats(self) -> LayerStats | None:
        """[K, L], of each client's change; None unless the selector's `needs` names ``client_stats``."""
        return None if self.change is None else self.change.client_stats

    def uniform(self) -> Vector:
        """[R, B], drawn from [0, 1)."""
        blocks = len(self.layout.blocks)
        if self.generators:
            return np.stack([own.random(blocks) for own in self.generators])
        return self.generator.random((self.rows, blocks))
