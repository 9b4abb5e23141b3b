"""Turns a scored change into the ranked rows that `fedtlu score` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedtlu_fast.layout import Group, ParameterLayout

if TYPE_CHECKING:
    from fedtlu_fast.changes.scored import ScoredChange


def ranking(scored: ScoredChange) -> dict[str, Any]:
    """Returns all results of a scored change in a form that JSON can hold.

    A layer is ranked among like layers, which are the same tensor of like blocks. ``alike_by`` tells why they
    are alike: by ``place`` (the same part of repeated blocks) or by ``shape``.
    """
    return {
        "granularity": scored.layout.granularity,
        "ddof": scored.scores.ddof,
        "blocks": block_rows(scored),
        "layers": layer_rows(scored),
        "skipped": list(scored.skipped),
        "buffers": list(scored.buffers),
        "tied": list(scored.tied),
        "renamed": [{"before": name, "after": other} for name, other in scored.renamed.items()],
        "not_read": list(scored.not_read),
    }


def block_rows(scored: ScoredChange) -> list[dict[str, Any]]:
    """Returns a row for each block, best first within its group; unique blocks are last."""
    layout, values = scored.layout, scored.block_scores.tolist()
    sizes, squares = layout.block_sizes(), scored.stats.l2.square()

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


def layer_rows(scored: ScoredChange) -> list[dict[str, Any]]:
    """Returns a row for each layer, the largest excess first; layers without a score in Eq. 1 are last."""
    stats, scores = scored.stats, scored.scores
    excess, degenerate = scores.excess.tolist(), scores.degenerate.tolist()

    def quality(layer: int) -> tuple[bool, float]:
        return degenerate[layer], -excess[layer]

    by_tensor = ParameterLayout.from_shapes({x.name: x.shape for x in scored.layout.layers}, "tensor")
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
