"""Defines `Evidence`, the numbers that a selector may look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    """Holds the numbers that a selector may look at; a selector must not change them.

    Attributes:
        layout: the model's blocks and groups.
        metrics: the metrics that the selector's `needs` names, by name: [R, B] float64, larger is better. A
            metric that is the same for all clients is [1, B].
        generator: the random generator of this round, a pure function of seed and round.
        rows: R, the number of choices to make: 1 for the server, C for C clients.
        round: the number of the round, from 1.
        generators: one generator per row if every client draws for itself; else empty.
        change: the aggregated change on the server, or the client's own change if the selector's moment is
            ``by_change``; None before clients have trained.
        parameters: [P] float32, the global parameters at the start of the round; None outside of a run.
        last_choice: [B] bool, the blocks that were applied in the round before; None in round 1.
        warmup_rounds: the number of first rounds that update every block and call no selector.
        memory: what the selector's `Selector.remembers` returned in the last targeted round, by name, on the
            CPU; empty in the first targeted round, and for selectors that remember nothing.
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
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def stats(self) -> LayerStats | None:
        """Returns the statistics of every layer's change, [L]; None before clients have trained."""
        return None if self.change is None else self.change.stats

    @property
    def client_stats(self) -> LayerStats | None:
        """Returns the statistics of each client's change, [K, L].

        They are None unless the selector's `needs` names ``client_stats``.
        """
        return None if self.change is None else self.change.client_stats

    def uniform(self) -> Vector:
        """Draws uniformly from [0, 1), [R, B]."""
        blocks = len(self.layout.blocks)
        if self.generators:
            return np.stack([own.random(blocks) for own in self.generators])
        return self.generator.random((self.rows, blocks))
