"""Computes Eq. 1 of FedTLU (arXiv 2412.17692): scores of layers from their statistics, and scores of blocks.

    Score(W_i) = ||dW_i||_2 / (sqrt(n_i) * std(dW_i))                                          (Eq. 1)

With the population std this is sqrt(1 + (mean/std)^2), which is at least 1, and for weight matrices only
1e-12 to 1e-5 larger than 1. The score is therefore not computed from a norm and a std, because rounding
errors would decide the order, but from ``excess`` = (mean/std)^2, which gives the same order in full
precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError, check_kind, not_one_of
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.ops import derived
from fedtlu_fast.scoring.statistics import LayerStats
from fedtlu_fast.torch_state import without_modes

Pooling = Literal["mean", "pooled"]


@dataclass(frozen=True)
class LayerScores:
    """The scores of L layers; all vectors are [L] and on the CPU.

    Attributes:
        names: the layers' names.
        score: [L] float64, Eq. 1.
        excess: [L] float64, (mean/std)^2; with ddof 0 it is score^2 - 1 without rounding errors. Rank by
            this.
        degenerate: [L] bool, true for layers for which Eq. 1 is not a number: they have fewer than two
            elements, only equal elements (zeros, for example), NaN or Inf, or squares that overflow float64.
            Their excess is 0, the smallest value of the formula, so that a layer is not chosen for being
            degenerate.
        ddof: 0 for the population std, 1 for the sample std (`torch.std`'s default).
    """

    names: tuple[str, ...]
    score: Tensor
    excess: Tensor
    degenerate: Tensor
    ddof: int

    def __len__(self) -> int:
        return len(self.names)

    @property
    def margin(self) -> Tensor:
        """[L] float64, score - 1 with ddof 0, computed without cancellation; 0 for a degenerate layer."""
        return self.excess / (1 + torch.sqrt(1 + self.excess))


@without_modes
def score_layers(stats: LayerStats, ddof: int = 1) -> LayerScores:
    """Computes Eq. 1 for every layer.

    Args:
        stats: [L], statistics of the aggregated change.
        ddof: 1 for the sample std (default), 0 for the population std. The paper does not say which it means;
            we chose `torch.std`'s default as the likelier one. Since ``score = sqrt((n - ddof)/n * (1 +
            excess))``, both give the same order among layers of equal n, so that block selection does not
            depend on it.

    Raises:
        InputError: ddof is neither 0 nor 1.

    Examples:
        >>> from fedtlu_fast import layer_stats
        >>> scores = score_layers(layer_stats([torch.tensor([1.0, 3.0])]), ddof=0)
        >>> scores.excess.item(), round(scores.score.item(), 4)
        (4.0, 2.2361)
    """
    check_kind("stats", stats, LayerStats, "the result of layer_stats")
    if ddof not in (0, 1) or isinstance(ddof, bool):
        raise InputError("ddof", ddof, "0 (population) or 1 (sample)")
    stats = stats.cpu()
    rows, degenerate = derived.score(stats.count, stats.mean, stats.std, stats.nonfinite, ddof)
    score, excess = rows.unbind()
    return LayerScores(stats.names, score, excess, degenerate, ddof)


@without_modes
def score_blocks(
    scores: LayerScores, layout: ParameterLayout, stats: LayerStats, pooling: Pooling = "mean"
) -> Tensor:
    """Returns the score of each block, [B] float64, which can be compared within a group.

    A block gets -1 if its layers are all degenerate, if it holds NaN or Inf (and so cannot be applied), or if
    it has no layer.

    The paper adds up the scores of a block's layers without giving details; `pooling` offers two readings.

    Args:
        scores: scores of the layers of `layout`.
        layout: the blocks.
        stats: the statistics that the scores were computed from (for ``pooled``).
        pooling: ``mean``: the mean over the block's layers of (score - 1, ddof 0), taken without
            cancellation as ``excess / (1 + sqrt(1 + excess))``; ranks like the mean or the sum of Eq. 1.
            ``pooled``: the excess of the block taken as one long layer.

    Raises:
        InputError: the pooling is unknown, or scores, layout and statistics do not have the same layers.
    """
    if pooling not in ("mean", "pooled"):
        raise not_one_of("pooling", pooling, ("mean", "pooled"))
    check_kind("scores", scores, LayerScores, "the result of score_layers")
    check_kind("layout", layout, ParameterLayout, "a ParameterLayout")
    check_kind("stats", stats, LayerStats, "the result of layer_stats")
    for field, given in (("scores", scores), ("stats", stats)):
        if len(given) != len(layout.layers):
            raise InputError(field, f"{len(given)} layers", f"the {len(layout.layers)} of the layout")
    values = torch.empty(len(layout.blocks), dtype=torch.float64)
    stats = stats.cpu()
    margin = scores.margin
    for index, block in enumerate(layout.blocks):
        layers = torch.tensor(block.layers, dtype=torch.int64)
        if not len(layers):
            value, lost = torch.zeros(()), True
        elif pooling == "mean":
            value = margin[layers].mean()
            lost = bool(scores.degenerate[layers].all()) or bool((stats.nonfinite[layers] > 0).any())
        else:
            value = _pooled_excess(stats, layers)
            lost = not bool(torch.isfinite(value))
        values[index] = -1.0 if lost else value
    return values


def _pooled_excess(stats: LayerStats, layers: Tensor) -> Tensor:
    """Returns (mean/std)^2 of several layers treated as one; NaN or Inf if the block has no such number."""
    count, mean = stats.count[layers], stats.mean[layers]
    # Means are taken relative to the longest layer's, so that equal constant layers have zero deviations.
    pivot = mean[count.argmax()]
    shift = (count * (mean - pivot)).sum() / count.sum()
    m2 = (count * stats.std[layers].square() + count * (mean - pivot - shift).square()).sum()
    std = (m2 / count.sum()).sqrt()
    return torch.where(torch.isfinite(std), ((pivot + shift) / std).square(), torch.nan)
