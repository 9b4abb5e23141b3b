"""What blocks are ranked by: the paper's score, or the norm of the change against a scale (ours).

    excess             (mean/std)^2                                 Eq. 1 of FedTLU (`scoring`)
    l2_per_parameter   ||dW|| / sqrt(n)                             Eq. 1 without its std
    relative_change    ||dW|| / ||W||                               W: the global parameters before the round
    agreement          ||sum_k n_k d_k|| / sum_k n_k ||d_k||        d_k: client k's change; dW their mean

relative_change is the counterpart, for changes, of the relative gradient norm that the client-side paper
compares with (arXiv 2408.15600). agreement is at most 1, but for rounding: 1 where all clients pull the same
way, some 1/sqrt(K) where K clients pull at random.

A metric is a function of a `Change`. It returns `BlockValues`, or a tensor or array [B] in which larger is
better; a function of your own goes by its dotted name. `asks` says which facts about single clients it wants.

A *unit* has a norm of its own: each of the L layers, then each of the B blocks taken as one long layer.
Norms, scales and ratios of units are vectors [L + B], float64, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.errors import InputError, cause, not_one_of
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.registry import find
from fedtlu_fast.scoring.scores import LayerScores, Pooling, score_blocks
from fedtlu_fast.scoring.statistics import LayerStats, layer_stats

ScoredLayers = Literal["all", "matrices", "vectors"]
FACTS = ("client_norms", "client_stats")
"""Facts about single clients that a metric, a score or a selector may ask for; see `Change`."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Change:
    """One change of a model, as metrics and scores see it: the aggregated one, or one client's own.

    Attributes:
        layout: layers, blocks and groups.
        stats: [L] float64 on the CPU, statistics of every layer's change.
        scores: Eq. 1 for every layer.
        parameters: [P] float32, the global parameters before the change; None outside of a run. Do not change
            them.
        scored: the layout whose blocks hold only the layers that make their scores.
        pooling: how the values of layers become a block's; see `ratios`.
        round: the number of the round, from 1.
        last_choice: [B] bool, the blocks that were applied in the round before; None before round 2.
        client_norms: [L + B] float64, ``sum_k n_k ||d_k|| / sum_k n_k`` of every unit; None unless asked for.
        client_stats: [K, L], statistics of the change of each accepted client, in the order of the cohort;
            None unless asked for.
        client_weights: [K] float64, their weights; None unless `client_stats` is there.
        backend: which backend runs the kernels.
    """

    layout: ParameterLayout
    stats: LayerStats
    scores: LayerScores
    parameters: Tensor | None
    scored: ParameterLayout
    pooling: Pooling = "mean"
    round: int = 1
    last_choice: NDArray[np.bool_] | None = None
    client_norms: Tensor | None = None
    client_stats: LayerStats | None = None
    client_weights: Tensor | None = None
    backend: str = "auto"


@dataclass(frozen=True)
class BlockValues:
    """What a metric says of one change.

    Attributes:
        layers: [L] float64; of ``excess`` it is score - 1 (ddof 0). 0, the least, where it is no number. None
            where the metric has no values for layers.
        blocks: [B] float64, larger is better; -1, behind all others, for a block that cannot be ranked.
    """

    layers: Tensor | None
    blocks: Tensor


def asks(*facts: str) -> Callable[[Function], Function]:
    """Marks a metric or score that wants facts about single clients; without the mark they are not computed.

    Args:
        facts: some of `FACTS`.

    Raises:
        InputError: there is no such fact.

    Example:
        >>> @asks("client_stats")
        ... def spread(change):
        ...     return change.client_stats.l2.std(dim=0)
    """
    for fact in facts:
        if fact not in FACTS:
            raise not_one_of("asks", fact, FACTS)

    def marked(function: Function) -> Function:
        function.__dict__["asks"] = facts
        return function

    return marked


def asked_by(names: tuple[str, ...], field: str = "needs") -> frozenset[str]:
    """The facts about single clients that these metrics want, and those that are named themselves.

    Args:
        names: of metrics, and some of `FACTS`.
        field: the setting or argument that gives them, for the error.

    Raises:
        InputError: there is no such metric.
    """
    found: set[str] = set()
    for name in names:
        found |= {name} if name in FACTS else set(getattr(find("metric", name, field), "asks", ()))
    return frozenset(found)


def measure(metric: str, change: Change) -> BlockValues:
    """The metric's value for every block, and for every layer if it has them.

    Args:
        metric: a name, or the dotted name of a function (see the module's text).
        change: what is measured.

    Raises:
        InputError: there is no such metric, it raised, or it returned something else than [B].
    """
    function = find("metric", metric, "metric")
    try:
        found = function(change)
    except InputError:
        raise
    except Exception as error:
        raise InputError("metric", metric, f"a function of a Change; {cause(error)}") from error
    return (
        found
        if isinstance(found, BlockValues)
        else BlockValues(None, block_vector("metric", metric, found, change.layout))
    )


def block_vector(field: str, name: str, found: Any, layout: ParameterLayout) -> Tensor:
    """[B] float64, of what a function of the user's returned.

    Args:
        field: the setting or argument that gives the function, for the error.
        name: of the function.
        found: a tensor, array or list.
        layout: of the model.

    Raises:
        InputError: it is something else.
    """
    blocks = len(layout.blocks)
    try:
        vector = torch.as_tensor(found).detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        given = type(found).__name__
        raise InputError(field, given, f"{name} to return [{blocks}] numbers; {cause(error)}") from None
    if vector.shape != (blocks,):
        raise InputError(field, tuple(vector.shape), f"{name} to return shape ({blocks},), a number a block")
    return vector


def excess(change: Change) -> BlockValues:
    """Eq. 1 of FedTLU: (mean/std)^2 (`scoring`)."""
    blocks = score_blocks(change.scores, change.scored, change.stats, change.pooling)
    return BlockValues(change.scores.margin, blocks)


def l2_per_parameter(change: Change) -> BlockValues:
    """``||dW|| / sqrt(n)``: Eq. 1 without its std. Pooled, it ranks like blocks as the plain L2 norm does."""
    return ratios(change, root_counts(change.scored))


def relative_change(change: Change) -> BlockValues:
    """``||dW|| / ||W||``."""
    if change.parameters is None:
        raise InputError("metric", "relative_change", "a change whose parameters before it are known")
    weights = layer_stats(change.parameters, change.scored, backend=change.backend)
    return ratios(change, unit_norms(weights, change.scored))


@asks("client_norms")
def agreement(change: Change) -> BlockValues:
    """``||sum_k n_k d_k|| / sum_k n_k ||d_k||``."""
    return ratios(change, change.client_norms)


def ratios(change: Change, scale: Tensor | None) -> BlockValues:
    """The norm of every layer and block over a scale.

    No layer wins by being degenerate: with fewer than two elements, with NaN or Inf inside, unchanged, or set
    against a scale of zero (a layer that is all zeros has no relative change), its value is 0. A block
    whose layers are all degenerate, or that holds NaN or Inf, gets -1, as in `score_blocks`.

    Args:
        change: with ``pooling`` ``mean``: the mean of the values of a block's layers, in which a bias counts
            as much as a matrix; ``pooled``: of the block taken as one long layer.
        scale: [L + B], the divisor of each unit's norm: `root_counts`, `unit_norms` of the parameters, or
            `mean_client_norms`.

    Raises:
        InputError: unknown pooling; a scale that is missing or of another layout.
    """
    layout, pooling = change.scored, change.pooling
    if pooling not in ("mean", "pooled"):
        raise not_one_of("pooling", pooling, ("mean", "pooled"))
    units = len(layout.layers) + len(layout.blocks)
    if scale is None or scale.shape != (units,):
        given = None if scale is None else tuple(scale.shape)
        raise InputError("scale", given, f"[{units}], a number for each layer and block")
    norms = unit_norms(change.stats, layout)
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
    """The layout with only those layers in its blocks that make their scores.

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
