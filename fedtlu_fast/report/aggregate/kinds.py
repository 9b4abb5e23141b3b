"""Which kinds of layers decide the score of a block: matrices, biases or norms (ours).

A block's score is the mean of its layers' values, so it is a sum of one part for each kind of layer. The
variance of the score between like blocks splits accordingly: kind k has the share cov(part_k, score) /
var(score). The shares of a round add up to 1; one is negative where the kind works against the ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedtlu_fast.layout import Group, ParameterLayout
from fedtlu_fast.report.aggregate.stability import Matrix, Spread, group_histories, kendall_tau, overlaps

KINDS = ("matrix", "bias", "norm weight", "norm bias", "other vector")


@dataclass(frozen=True)
class KindShare:
    """One row of the table: a kind of layer within the blocks of one group.

    Attributes:
        group: the name of the group.
        kind: one of `KINDS`.
        layers: the number of layers of this kind in all blocks of the group.
        parameters: the share of the blocks' parameters that these layers hold.
        variance: the share of the variance of the score between blocks that comes from these layers, over the
            targeted rounds.
        tau: Kendall's tau-b between the ranking by these layers alone and the actual ranking.
        overlap: the Jaccard overlap of the best blocks by these layers alone with the best blocks by the
            score, as many as were chosen in the round.
    """

    group: str
    kind: str
    layers: int
    parameters: float
    variance: Spread
    tau: Spread
    overlap: Spread


def kinds_of(layout: ParameterLayout) -> tuple[str, ...]:
    """Finds the kind of each of the L layers from its shape and from the other layers of its module.

    Two dimensions or more: ``matrix`` (convolutions and embeddings too). A vector beside a matrix in the
    same module: ``bias`` if its name says so. In a module of vectors only: ``norm weight`` and ``norm bias``
    by the usual names (weight, bias; also gamma, beta). The rest is ``other vector``. Names and shapes do not
    show the type of a module, so the weight of a PReLU is taken for a norm's.
    """
    modules: dict[str, bool] = {}
    for layer in layout.layers:
        owner = layer.name.rpartition(".")[0]
        modules[owner] = modules.get(owner, False) or len(layer.shape) > 1
    return tuple(_kind(layer.name, len(layer.shape), modules) for layer in layout.layers)


def kind_shares(
    selection: Sequence[dict[str, Any]], layout: ParameterLayout, metric: str = "excess"
) -> list[KindShare]:
    """Computes what each kind of layer adds to the scores, for groups whose blocks hold several kinds.

    With ``selection.pooling=pooled`` a score is no sum over layers. The shares are then those of the mean of
    the layers' values, by which blocks are not ranked; tau and overlap compare with the pooled score.

    Args:
        selection: the rows of selection.jsonl; warm-up rounds are left out.
        layout: the layout of the run's model.
        metric: the metric that ranked the blocks.
    """
    rows = [row for row in selection if not row["warmup"]]
    if not has_layer_values(rows, metric):
        return []
    values = np.array([_values(row["layers"], layout, metric) for row in rows])
    kinds = kinds_of(layout)
    found: list[KindShare] = []
    for group, history in zip(layout.groups, group_histories(selection, layout), strict=True):
        inside = [kinds[layer] for block in group.blocks for layer in layout.blocks[block].layers]
        present = [kind for kind in KINDS if kind in inside]
        if len(present) < 2 or not rows:
            continue
        parts = {kind: _part(values, layout, group, kinds, kind) for kind in present}
        score = sum(parts.values(), np.zeros_like(history.scores))
        sizes = {kind: _parameters(layout, group, kinds, kind) for kind in present}
        chosen = history.chosen.sum(axis=1)
        for kind, part in parts.items():
            best = overlaps(_best(part, chosen), _best(history.scores, chosen))
            found.append(
                KindShare(
                    group=group.name,
                    kind=kind,
                    layers=inside.count(kind),
                    parameters=sizes[kind] / sum(sizes.values()),
                    variance=Spread.of(_variance_share(part, score)),
                    tau=Spread.of(kendall_tau(part, history.scores)),
                    overlap=Spread.of(best),
                )
            )
    return found


def has_layer_values(selection: Sequence[dict[str, Any]], metric: str) -> bool:
    """Tells whether the metric gave every layer a value; ``votes`` and most metrics of users give none.

    Args:
        selection: the rows of selection.jsonl.
        metric: the metric that ranked the blocks.
    """
    layers = (layer for row in selection for layer in row["layers"].values())
    return metric == "excess" or all("value" in layer for layer in layers)


def _kind(name: str, dimensions: int, modules: dict[str, bool]) -> str:
    owner, _, leaf = name.rpartition(".")
    if dimensions > 1:
        return "matrix"
    if modules[owner]:
        return "bias" if "bias" in leaf else "other vector"
    return {"weight": "norm weight", "gamma": "norm weight", "bias": "norm bias", "beta": "norm bias"}.get(
        leaf, "other vector"
    )


def _values(layers: dict[str, dict[str, float]], layout: ParameterLayout, metric: str) -> list[float]:
    """Returns the values of layers whose mean is a block's value (`block_metrics.BlockValues.layers`)."""
    own = [layers[name] for name in layout.names]
    if metric != "excess":
        return [layer["value"] for layer in own]
    return [layer["excess"] / (1 + float(np.sqrt(1 + layer["excess"]))) for layer in own]


def _part(values: Matrix, layout: ParameterLayout, group: Group, kinds: Sequence[str], kind: str) -> Matrix:
    """Returns [T, B]: what the layers of this kind add to the mean over each block."""
    columns = []
    for block in group.blocks:
        layers = layout.blocks[block].layers
        own = [layer for layer in layers if kinds[layer] == kind]
        columns.append(values[:, own].sum(axis=1) / len(layers))
    return np.stack(columns, axis=1)


def _parameters(layout: ParameterLayout, group: Group, kinds: Sequence[str], kind: str) -> int:
    layers = [layer for block in group.blocks for layer in layout.blocks[block].layers]
    return sum(layout.layers[layer].numel for layer in layers if kinds[layer] == kind)


def _variance_share(part: Matrix, score: Matrix) -> Matrix:
    """Returns [T]: cov(part, score) / var(score) over the blocks; NaN if all blocks score the same."""
    off = score - score.mean(axis=1, keepdims=True)
    total = (off * off).sum(axis=1)
    return np.where(total > 0, (part * off).sum(axis=1) / np.where(total > 0, total, 1), np.nan)


def _best(scores: Matrix, counts: Sequence[int] | Matrix) -> Any:
    """Returns [T, B] bool: the `counts[t]` best blocks of each row; of equal ones the earlier."""
    places = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
    return places < np.asarray(counts)[:, None]
