"""Ranks the layers, blocks and kinds of a scored change, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fedtlu_fast.changes.kinds import Kind
from fedtlu_fast.layout import Block, Group, ParameterLayout
from fedtlu_fast.scoring import LayerScores, LayerStats

Row = dict[str, Any]


def block_rows(
    layout: ParameterLayout,
    stats: LayerStats,
    weights: LayerStats | None,
    block_scores: Tensor,
    values: Tensor,
) -> list[Row]:
    """Returns a row for each block, best first within its group; unique blocks are last.

    Args:
        layout: the blocks and groups.
        stats: the statistics of every layer's change, [L].
        weights: the statistics of every layer's weights before the change, [L]; None if unknown.
        block_scores: the scores of the blocks (Eq. 1), [B].
        values: the values of the metric that ranks, [B].
    """
    sizes, ranked = layout.block_sizes(), values.tolist()

    def row(block: int, group: Group | None, rank: int | None) -> Row:
        return {
            "group": group.name if group else None,
            "alike_by": _alike_by(group),
            "rank": rank,
            "name": layout.blocks[block].name,
            "value": ranked[block],
            "score": float(block_scores[block]),
            **_norms(layout.blocks[block], stats, weights),
            "parameters": sizes[block],
        }

    rows = []
    for group in layout.groups:
        best_first = sorted(group.blocks, key=lambda block: -ranked[block])
        rows += [row(block, group, rank) for rank, block in enumerate(best_first, start=1)]
    return rows + [row(block, None, None) for block in layout.unique]


def layer_rows(
    stats: LayerStats, weights: LayerStats | None, scores: LayerScores, values: Tensor, kinds: Sequence[Kind]
) -> list[Row]:
    """Returns a row for each layer, the largest value first; layers without a value are last.

    A layer is ranked among like layers, which are the same tensor of like blocks. ``alike_by`` tells why they
    are alike: by ``place`` (the same part of repeated blocks) or by ``shape``.

    Args:
        stats: the statistics of every layer's change, [L].
        weights: the statistics of every layer's weights before the change, [L]; None if unknown.
        scores: the scores of every layer (Eq. 1), [L].
        values: the values of the metric that ranks, [L]; negative for a layer without a value.
        kinds: the kinds of layers.
    """
    ranked: list[float] = values.tolist()
    excess, degenerate = scores.excess.tolist(), scores.degenerate.tolist()

    def quality(layer: int) -> float:
        return -ranked[layer]

    places: dict[int, tuple[int | None, Kind]] = {}
    for kind in kinds:
        for rank, layer in enumerate(sorted(kind.layers, key=quality), start=1):
            places[layer] = (rank if kind.group else None, kind)
    rows = []
    for layer in sorted(range(len(scores)), key=quality):
        place, kind = places[layer]
        rows.append(
            {
                "name": scores.names[layer],
                "kind": kind.name,
                "role": kind.role,
                "rank": place,
                "like": len(kind.layers),
                "alike_by": _alike_by(kind.group),
                "value": ranked[layer],
                "score": float(scores.score[layer]),
                "excess": excess[layer],
                "degenerate": degenerate[layer],
                **{name: float(getattr(stats, name)[layer]) for name in ("count", "mean", "std")},
                **_norms(Block(scores.names[layer], (layer,)), stats, weights),
                **{name: float(getattr(stats, name)[layer]) for name in ("abs_max", "nonfinite")},
            }
        )
    return rows


def kind_rows(
    layout: ParameterLayout,
    stats: LayerStats,
    weights: LayerStats | None,
    values: Tensor,
    layer_values: Tensor,
    kinds: Sequence[Kind],
) -> list[Row]:
    """Returns a row for each kind, the largest value first.

    Args:
        layout: the layout whose blocks are the kinds (`kinds.by_kind`).
        stats: the statistics of every layer's change, [L].
        weights: the statistics of every layer's weights before the change, [L]; None if unknown.
        values: the values of the metric for the kinds.
        layer_values: the values of the metric for the layers, [L].
        kinds: the kinds.
    """
    total, sizes = float(stats.l2.square().sum()), layout.block_sizes()
    rows = []
    for index, kind in enumerate(kinds):
        norms = _norms(layout.blocks[index], stats, weights)
        best = max(kind.layers, key=lambda layer: float(layer_values[layer]))
        rows.append(
            {
                "name": kind.name,
                "role": kind.role,
                "value": float(values[index]),
                **norms,
                "share": norms["l2"] ** 2 / total if total else 0.0,
                "layers": len(kind.layers),
                "best": layout.layers[best].name,
                "parameters": sizes[index],
            }
        )
    return sorted(rows, key=lambda row: -row["value"])


def _norms(unit: Block, stats: LayerStats, weights: LayerStats | None) -> Row:
    """Returns the norm of a unit's change, and its relation to the norm of the weights before."""
    layers = list(unit.layers)
    change = float(stats.l2[layers].square().sum().sqrt())
    before = None if weights is None else float(weights.l2[layers].square().sum().sqrt())
    return {"l2": change, "relative_change": change / before if before else None}


def _alike_by(group: Group | None) -> str | None:
    if group is None:
        return None
    return "shape" if group.by_shape else "place"
