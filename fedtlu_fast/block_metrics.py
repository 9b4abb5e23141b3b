"""What blocks are ranked by: the paper's score, or the norm of the change against a scale (ours).

    excess             (mean/std)^2                                 Eq. 1 of FedTLU (`scoring`)
    l2_per_parameter   ||dW|| / sqrt(n)                             Eq. 1 without its std
    relative_change    ||dW|| / ||W||                               W: the global parameters before the round
    agreement          ||sum_k n_k d_k|| / sum_k n_k ||d_k||        d_k: client k's change; dW their mean

relative_change is the counterpart, for changes, of the relative gradient norm that the client-side paper
compares with (arXiv 2408.15600). agreement is at most 1, but for rounding: 1 where all clients pull the same
way, some 1/sqrt(K) where K clients pull at random.

A *unit* is what has a norm of its own: each of the L layers, then each of the B blocks taken as one long
layer. Norms, scales and ratios of units are vectors [L + B], float64, on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.errors import InputError, not_one_of
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring import LayerScores, Pooling, score_blocks
from fedtlu_fast.stats import LayerStats

Metric = Literal["excess", "l2_per_parameter", "relative_change", "agreement"]
ScoredLayers = Literal["all", "matrices", "vectors"]


@dataclass(frozen=True)
class BlockValues:
    """What a metric says of one change.

    Attributes:
        layers: [L] float64; of ``excess`` it is score - 1 (ddof 0). 0, the least, where it is no number.
        blocks: [B] float64, larger is better; -1, behind all others, for a block that cannot be ranked.
    """

    layers: Tensor
    blocks: Tensor


def measure(
    metric: Metric,
    layout: ParameterLayout,
    stats: LayerStats,
    scores: LayerScores,
    pooling: Pooling = "mean",
    scale: Tensor | None = None,
) -> BlockValues:
    """The metric's value for every layer and every block.

    No layer wins by being degenerate: with fewer than two elements, with NaN or Inf inside, unchanged, or set
    against a scale of zero (a layer that is all zeros has no relative change), its value is 0. A block
    whose layers are all degenerate, or that holds NaN or Inf, gets -1, as in `score_blocks`.

    Args:
        metric: see the module's text.
        layout: layers and blocks.
        stats: of the aggregated change.
        scores: Eq. 1 for its layers.
        pooling: ``mean``: the mean of the values of a block's layers, in which a bias counts as much as a
            matrix; ``pooled``: of the block taken as one long layer. Pooled, l2_per_parameter ranks like
            blocks as the plain L2 norm does.
        scale: [L + B], what the norm of each unit is divided by: `root_counts`, `unit_norms` of the
            parameters, or `mean_client_norms`; None for excess.

    Raises:
        InputError: unknown pooling; a scale that is missing or of another layout.
    """
    if metric == "excess":
        return BlockValues(scores.margin, score_blocks(scores, layout, stats, pooling))
    if pooling not in ("mean", "pooled"):
        raise not_one_of("pooling", pooling, ("mean", "pooled"))
    units = len(layout.layers) + len(layout.blocks)
    if scale is None or scale.shape != (units,):
        given = None if scale is None else tuple(scale.shape)
        raise InputError("scale", given, f"[{units}], a number for each layer and block, for {metric}")
    norms = unit_norms(stats, layout)
    ratio = norms / scale
    # NaN or Inf in a layer is NaN in its norm, and in its block's; sqrt(1) is 1.
    regular = (root_counts(layout) > 1) & (norms > 0) & (scale > 0) & (ratio > 0) & torch.isfinite(ratio)
    values = torch.where(regular, ratio, 0.0)
    layers, first = values[: len(layout.layers)], len(layout.layers)
    if pooling == "pooled":
        return BlockValues(layers, torch.where(regular[first:], values[first:], -1.0))
    means = [_mean(layers, norms, block.layers) for block in layout.blocks]
    return BlockValues(layers, torch.tensor(means, dtype=torch.float64))


def scored_layout(layout: ParameterLayout, scored: ScoredLayers) -> ParameterLayout:
    """The layout with only those layers in its blocks that make their scores: what `measure` is to go by.

    Args:
        layout: of the model.
        scored: ``all`` (the paper's); ``matrices``, layers of two dimensions or more (convolutions and
            embeddings too); ``vectors``, the others: norms and biases. The last two are ours, for asking
            which of them decide. A block without a like may be left with no layer at all; it gets -1.

    Raises:
        InputError: the blocks of a group hold no such layer, so that nothing would tell them apart.
    """
    if scored == "all":
        return layout
    wanted = [(len(layer.shape) > 1) == (scored == "matrices") for layer in layout.layers]
    blocks = [
        replace(block, layers=tuple(layer for layer in block.layers if wanted[layer]))
        for block in layout.blocks
    ]
    for group in layout.groups:
        if not all(blocks[block].layers for block in group.blocks):
            expected = f"all: the blocks of {group.name} hold no {scored}"
            raise InputError("selection.scored_layers", scored, expected)
    return replace(layout, blocks=tuple(blocks))


def root_counts(layout: ParameterLayout) -> Tensor:
    """[L + B]: sqrt(n), the scale of l2_per_parameter."""
    counts = [*(layer.numel for layer in layout.layers), *layout.block_sizes()]
    return torch.tensor(counts, dtype=torch.float64).sqrt()


def unit_norms(stats: LayerStats, layout: ParameterLayout) -> Tensor:
    """[L + B], or [K, L + B] for the statistics of K clients: the L2 norm of every unit."""
    layers = stats.cpu().l2
    blocks = [layers[..., list(block.layers)].square().sum(dim=-1).sqrt() for block in layout.blocks]
    return torch.cat([layers, torch.stack(blocks, dim=-1)], dim=-1)


def mean_client_norms(
    total: NDArray[np.float64] | None, samples: float | NDArray[np.float64], layout: ParameterLayout
) -> Tensor:
    """[L + B]: ``sum_k n_k ||d_k|| / sum_k n_k``, the scale of agreement; zeros without any client.

    Args:
        total: [L + B], ``sum_k n_k ||d_k||``; None when no client was averaged in.
        samples: ``sum_k n_k``; [L + B] where not every client sent every block.
        layout: layers and blocks.
    """
    if total is None:
        return torch.zeros(len(layout.layers) + len(layout.blocks), dtype=torch.float64)
    return torch.from_numpy(total / np.maximum(samples, 1))


def _mean(values: Tensor, norms: Tensor, layers: tuple[int, ...]) -> float:
    own = values[list(layers)]
    lost = not bool((own > 0).any()) or not bool(torch.isfinite(norms[list(layers)]).all())
    return -1.0 if lost else float(own.mean())
