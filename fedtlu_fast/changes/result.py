"""The result of scoring a change: scores of layers, blocks and kinds, as rows, text or a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from fedtlu_fast.changes.kinds import Kind, by_kind, kinds
from fedtlu_fast.changes.ranking import Row, block_rows, kind_rows, layer_rows
from fedtlu_fast.errors import InputError, choice, nearest, not_one_of
from fedtlu_fast.layout import Block, ParameterLayout
from fedtlu_fast.registry import names, usable
from fedtlu_fast.scoring import LayerScores, LayerStats, Pooling
from fedtlu_fast.scoring.block_metrics import Change, asked_by, measure, named
from fedtlu_fast.wording import either

if TYPE_CHECKING:
    from matplotlib.figure import Figure

By = Literal["layer", "block", "kind"]
EXCESS = "excess"
"""The metric of Eq. 1."""
BASE = either("base", "--base")
OF_CHANGE_ALONE = (EXCESS, "l2_per_parameter")
"""Metrics that do not need the weights before the change."""


@dataclass(frozen=True)
class ScoredChange:
    """Holds the scored change of a model; printing it shows the blocks, best first.

    Attributes:
        layout: layers, blocks and groups of the tensors that both states have, with the names of BEFORE.
        stats: statistics of every layer's change, [L].
        scores: the scores of every layer (Eq. 1), [L].
        block_scores: the scores of the blocks (Eq. 1), [B].
        weights: statistics of every layer's weights before the change, [L]; None if they are not known, as
            for two adapters without their base model.
        metric: the metric that ranks.
        pooling: how the values of a block's layers are combined; see `score_blocks`.
        skipped: names of tensors that are not floating point, or belong to quantised weights.
        buffers: names of buffers, which are not layers.
        tied: names of tensors that are copies of another tensor, as the file says or as their numbers show.
        left_out: sentences about layers that only one state has, or that have another shape in the other.
        renamed: name in BEFORE -> name in AFTER, for names that differ.
        not_read: sentences about files and tensors that were not read; each begins with ``BEFORE`` or
            ``AFTER``.
        notes: sentences about how files were read; each begins with ``BEFORE`` or ``AFTER``.
    """

    layout: ParameterLayout
    stats: LayerStats
    scores: LayerScores
    block_scores: Tensor
    weights: LayerStats | None
    metric: str
    pooling: Pooling
    skipped: tuple[str, ...]
    buffers: tuple[str, ...]
    tied: tuple[str, ...]
    left_out: tuple[str, ...]
    renamed: dict[str, str]
    not_read: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def blocks(self) -> list[Row]:
        """Returns a row for each block, best first in its group: name, group, rank, value, score, l2, ..."""
        return self.rows("block")

    @property
    def layers(self) -> list[Row]:
        """Returns a row for each layer, largest value first: name, rank, score, excess, mean, std, ..."""
        return self.rows("layer")

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """Returns the kinds of layers: the same tensor of like blocks, with its role in the block."""
        return tuple(kinds(self.layout))

    def rows(self, by: By = "block", metric: str | None = None) -> list[Row]:
        """Returns the ranking as rows, which are dictionaries with the same keys.

        In every row, ``value`` is the value of the metric; rows are ranked by it. ``score`` is always that of
        Eq. 1, ``l2`` the norm of the change, and ``relative_change`` this norm divided by that of the weights
        before (None if they are not known).

        Args:
            by: ``layer``: a row for each layer; ``block``: for each block, best first within its group, and
                unique blocks last; ``kind``: for each kind of layers (`kinds`), best first.
            metric: ``excess`` (Eq. 1), ``l2_per_parameter``, ``relative_change``, or the dotted name of a
                function of a `Change`. None: the metric that `score` was given.

        Raises:
            InputError: There is no such kind of rows or metric, or the metric needs weights that are not
                known, or facts about single clients.
        """
        if by not in get_args(By):
            raise not_one_of("by", by, get_args(By))
        metric = self.metric if metric is None else metric
        check_metric(metric)
        if by == "block":
            values = self._values(metric, self.layout)
            return block_rows(self.layout, self.stats, self.weights, self.block_scores, values)
        singles = tuple(Block(layer.name, (index,)) for index, layer in enumerate(self.layout.layers))
        layer_values = self._values(metric, replace(self.layout, blocks=singles, groups=()))
        if metric == EXCESS:
            # Without the rounding of score - 1, which has the same order.
            layer_values = torch.where(self.scores.degenerate, -1.0, self.scores.excess)
        if by == "layer":
            return layer_rows(self.stats, self.weights, self.scores, layer_values, self.kinds)
        layout = by_kind(self.layout, self.kinds)
        values = self._values(metric, layout)
        return kind_rows(layout, self.stats, self.weights, values, layer_values, self.kinds)

    def _values(self, metric: str, layout: ParameterLayout) -> Tensor:
        change = Change(
            layout, self.stats, self.scores, None, layout, pooling=self.pooling, weights=self.weights
        )
        try:
            return measure(metric, change).blocks
        except InputError as error:
            if self.weights is None and metric not in OF_CHANGE_ALONE:
                fix = f"Give the base model ({BASE}), or score with this metric."
                raise InputError("metric", metric, "a metric of the change alone", fix) from error
            raise

    def figure(self, by: By = "block", metric: str | None = None) -> Figure:
        """Returns a picture of `rows` with the same arguments: bars, or for layers a map of all blocks.

        It needs matplotlib; ``figure.savefig("change.png")`` writes it.
        """
        from fedtlu_fast.changes.picture import change_figure

        return change_figure(self, by, metric)

    def as_json(self) -> dict[str, Any]:
        """Returns all results in a form that JSON can hold."""
        return {
            "granularity": self.layout.granularity,
            "ddof": self.scores.ddof,
            "metric": self.metric,
            "blocks": self.blocks,
            "layers": self.layers,
            "kinds": self.rows("kind"),
            "skipped": list(self.skipped),
            "buffers": list(self.buffers),
            "tied": list(self.tied),
            "left_out": list(self.left_out),
            "renamed": [{"before": name, "after": other} for name, other in self.renamed.items()],
            "not_read": list(self.not_read),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [
            f"{len(self.layout.blocks)} blocks, {len(self.scores)} layers; best blocks of each group first"
        ]
        for row in self.blocks:
            place = f"rank {row['rank']} in {row['group']}" if row["rank"] else "unique"
            lines.append(f"  {row['name']}  {row['value']:.4e}  ({place})")
        if self.left_out:
            lines.append(f"  {len(self.left_out)} layers not compared, such as {self.left_out[0]}")
        return "\n".join(lines)


def check_metric(metric: str) -> None:
    """Raises an error unless a metric can be computed from two states of a model.

    Raises:
        InputError: There is no such metric, or it needs facts about single clients or held-out samples.
    """
    if metric not in names("metric") and ":" not in metric:
        alone = _of_two_states()
        expected = f"{choice(alone)}, or package.module:name of your own"
        raise InputError("metric", metric, expected, near=nearest(metric, alone))
    if facts := asked_by((metric,), "metric"):
        expected = f"a metric that needs no {named(facts)}"
        raise InputError("metric", metric, expected, f"Metrics of two states: {choice(_of_two_states())}.")


def _of_two_states() -> list[str]:
    """Returns the names of the metrics that need nothing beside the change."""
    return [name for name in usable("metric") if not asked_by((name,))]
