"""Scores the change of a model over periods of its training, of which some train a few blocks only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from fedtlu_fast.changes.result import EXCESS, ScoredChange
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.layout.blocks import Granularity
from fedtlu_fast.scoring import LayerStats, Pooling, layer_stats, score_blocks, score_layers


@dataclass(frozen=True, repr=False)
class Period:
    """What a period of training did; printing it shows the best block of each group.

    Attributes:
        number: the number of the period, from 1.
        step: the Trainer's global step at its end.
        epoch: the epoch at its end, as the Trainer counts it.
        trained: names of the blocks that were trained.
        scored: the scored change; a block that was not trained keeps the statistics of its last change.
    """

    number: int
    step: int
    epoch: float
    trained: tuple[str, ...]
    scored: ScoredChange

    def __repr__(self) -> str:
        layout, values = self.scored.layout, self.scored.block_scores.tolist()
        best = [max(group.blocks, key=lambda block: values[block]) for group in layout.groups]
        told = ", ".join(f"{layout.blocks[block].name} {values[block]:.4g}" for block in best)
        blocks = f"{len(self.trained)} of {len(layout.blocks)} blocks trained"
        return (
            f"Period {self.number}, to step {self.step}: {blocks}; best of each group: {told or 'no groups'}"
        )

    @property
    def scores(self) -> dict[str, float]:
        """Returns the score of every block by name; -1 for a block whose change has no score."""
        names = (block.name for block in self.scored.layout.blocks)
        return dict(zip(names, self.scored.block_scores.tolist(), strict=True))


class Periods:
    """Holds one copy of the trainable parameters, and compares the model with it at the end of a period.

    Attributes:
        layout: of the parameters that were trainable at the beginning.
    """

    def __init__(
        self, model: nn.Module, granularity: Granularity, pooling: Pooling, ddof: int, backend: str
    ) -> None:
        """Copies the trainable parameters.

        Raises:
            InputError: The model has none, or an argument is wrong (see `score_layers`, `score_blocks`).
        """
        self.layout = ParameterLayout.from_module(model, granularity)
        held = dict(model.named_parameters())
        self._params = {name: held[name] for name in self.layout.names}
        self._before = {name: param.detach().clone() for name, param in self._params.items()}
        self._pooling: Pooling = pooling
        self._ddof, self._backend = ddof, backend
        self._stats: LayerStats | None = None
        self.score()  # of no change: an error in the arguments is not to come after hours of training
        self._stats = None

    def train(self, blocks: Sequence[int]) -> None:
        """Has only these blocks trained from now on.

        The others need no gradient and have none, so that optimizers pass over them: neither their values nor
        what an optimizer remembers of them changes, weight decay included.
        """
        chosen = self.layout.layer_mask(blocks).tolist()
        for param, on in zip(self._params.values(), chosen, strict=True):
            param.requires_grad_(on)
            if not on:
                param.grad = None

    def score(self) -> ScoredChange:
        """Scores the change since the last call, and begins the next period."""
        trained = {name: param for name, param in self._params.items() if param.requires_grad}
        now = [self._change(name, param) for name, param in trained.items()]
        self._stats = stats = _merged(self.layout.names, now, self._stats)
        scores = score_layers(stats, self._ddof)
        return ScoredChange(
            layout=self.layout,
            stats=stats,
            scores=scores,
            block_scores=score_blocks(scores, self.layout, stats, self._pooling),
            weights=None,
            metric=EXCESS,
            pooling=self._pooling,
            skipped=(),
            buffers=(),
            tied=(),
            left_out=(),
            renamed={},
            not_read=(),
            notes=(),
        )

    def trained(self) -> tuple[str, ...]:
        """Returns the names of the blocks that are trained now."""
        on = [param.requires_grad for param in self._params.values()]
        return tuple(block.name for block in self.layout.blocks if any(on[layer] for layer in block.layers))

    @torch.no_grad()
    def _change(self, name: str, param: Tensor) -> LayerStats:
        """Returns the statistics [1] of one layer's change, and makes its copy that of the next period."""
        wide = torch.promote_types(param.dtype, torch.float32)  # bfloat16 would round the difference
        change = param.detach().to(wide).sub(self._before[name].to(wide))
        self._before[name].copy_(param)
        return layer_stats({name: change}, backend=self._backend).cpu()


def _merged(names: Sequence[str], now: Sequence[LayerStats], before: LayerStats | None) -> LayerStats:
    """Returns the statistics of all layers: those of now, or else of the layer's last change."""
    rows: dict[str, tuple[LayerStats, int]] = {}
    if before is not None:
        rows |= {name: (before, at) for at, name in enumerate(before.names)}
    rows |= {own.names[0]: (own, 0) for own in now}
    columns = {
        column.name: torch.stack([getattr(rows[name][0], column.name)[rows[name][1]] for name in names])
        for column in fields(LayerStats)
        if column.name != "names"
    }
    return LayerStats(tuple(names), **columns)
