"""Ranks the layers and blocks of a scored change, as rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fedtlu_fast.layout import Group, ParameterLayout
from fedtlu_fast.scoring import LayerScores, LayerStats


def block_rows(layout: ParameterLayout, stats: LayerStats, block_scores: Tensor) -> list[dict[str, Any]]:
    """Returns a row for each block, best first within its group; unique blocks are last.

    Args:
        layout: the blocks and groups.
        stats: the statistics of every layer's change, [L].
        block_scores: the scores of the blocks, [B].
    """
    values, sizes, squares = block_scores.tolist(), layout.block_sizes(), stats.l2.square()

    def row(block: int, group: Group | None, rank: int | None) -> dict[str, Any]:
        return {
            "group": group.name if group else None,
            "alike_by": _alike_by(group),
            "rank": rank,
            "name": layout.blocks[block].name,
            "score": values[block],
            "l2": float(squares[list(layout.blocks[block].layers)].sum().sqrt()),
            "parameters": sizes[block],
        }

    rows = []
    for group in layout.groups:
        best_first = sorted(group.blocks, key=lambda block: -values[block])
        rows += [row(block, group, rank) for rank, block in enumerate(best_first, start=1)]
    return rows + [row(block, None, None) for block in layout.unique]


def layer_rows(layout: ParameterLayout, stats: LayerStats, scores: LayerScores) -> list[dict[str, Any]]:
    """Returns a row for each layer, the largest excess first; layers without a score in Eq. 1 are last.

    A layer is ranked among like layers, which are the same tensor of like blocks. ``alike_by`` tells why they
    are alike: by ``place`` (the same part of repeated blocks) or by ``shape``.

    Args:
        layout: the layers.
        stats: the statistics of every layer's change, [L].
        scores: the scores of every layer, [L].
    """
    excess, degenerate = scores.excess.tolist(), scores.degenerate.tolist()

    def quality(layer: int) -> tuple[bool, float]:
        return degenerate[layer], -excess[layer]

    by_tensor = ParameterLayout.from_shapes({x.name: x.shape for x in layout.layers}, "tensor")
    places: dict[int, tuple[int, int, Group]] = {}
    for group in by_tensor.groups:
        like = [by_tensor.blocks[block].layers[0] for block in group.blocks]
        for rank, layer in enumerate(sorted(like, key=quality), start=1):
            places[layer] = (rank, len(like), group)
    rows = []
    for layer in sorted(range(len(scores)), key=quality):
        place = places.get(layer)
        rows.append(
            {
                "name": scores.names[layer],
                "rank": place[0] if place else None,
                "like": place[1] if place else 1,
                "alike_by": _alike_by(place[2] if place else None),
                "score": float(scores.score[layer]),
                "excess": excess[layer],
                "degenerate": degenerate[layer],
                **{
                    name: float(getattr(stats, name)[layer])
                    for name in ("count", "mean", "std", "l2", "abs_max", "nonfinite")
                },
            }
        )
    return rows


def _alike_by(group: Group | None) -> str | None:
    if group is None:
        return None
    return "shape" if group.by_shape else "place"
