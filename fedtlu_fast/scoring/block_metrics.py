"""The metrics that rank blocks: the paper's score, or the norm of the change relative to a scale (ours).

    excess             (mean/std)^2                                 Eq. 1 of FedTLU (`scoring`)
    l2_per_parameter   ||dW|| / sqrt(n)                             Eq. 1 without its std
    relative_change    ||dW|| / ||W||                               W: the global parameters before the round
    agreement          ||sum_k n_k d_k|| / sum_k n_k ||d_k||        d_k: client k's change; dW their mean

relative_change is the counterpart, for changes, of the relative gradient norm in the paper on clients'
selection (arXiv 2408.15600). Up to rounding, agreement is at most 1: it is 1 if the changes of all clients
have the same direction, and about 1/sqrt(K) if the changes of K clients have random directions.

A metric is a function of a `Change`. It returns `BlockValues`, or a tensor or array [B] in which larger is
better. A function of your own is given by its dotted name. `asks` names the facts about single clients that
it needs.

Norms, scales and ratios are those of units (`units`): vectors [L + B] float64 on the CPU, first the L layers,
then the B blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.errors import InputError, cause, kind_of, not_one_of
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.registry import find
from fedtlu_fast.scoring.held_out import HeldOut
from fedtlu_fast.scoring.scores import LayerScores, Pooling, score_blocks
from fedtlu_fast.scoring.statistics import LayerStats, layer_stats
from fedtlu_fast.scoring.units import root_counts, unit_norms
from fedtlu_fast.unchanged import unchanged

OF_CLIENTS = ("client_norms", "client_stats")
"""Facts about single clients: whoever asks for one does not work where the server sees only the aggregate."""
FACTS = (*OF_CLIENTS, "held_out")
"""Facts that a metric, a score or a selector may ask for beside the aggregated change; see `Change`."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Change:
    """One change of a model, as metrics and scores see it: the aggregated one, or one client's own.

    Attributes:
        layout: the model's layers, blocks and groups.
        stats: [L] float64 on the CPU, statistics of every layer's change.
        scores: Eq. 1 for every layer.
        parameters: [P] float32, the global parameters before the change; None outside of a run. Do not change
            them.
        scored: the layout whose blocks hold only the layers that count in their scores (`scored_layout`).
        pooling: how a block's value is computed from its layers; see `ratios`.
        round: the number of the round, from 1.
        last_choice: [B] bool, the blocks that were applied in the round before; None before round 2.
        client_norms: [L + B] float64, ``sum_k n_k ||d_k|| / sum_k n_k`` of every unit; None unless asked for.
        client_stats: [K, L], statistics of the change of each accepted client, in the order of the cohort;
            None unless asked for.
        client_weights: [K] float64, their weights; None unless `client_stats` is there.
        held_out: losses on a sample that the server holds; None unless asked for.
        backend: the backend that runs the kernels.
        weights: [L] float64 on the CPU, statistics of the parameters before the change; None if they are not
            known, or can be computed from `parameters`.
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
    held_out: HeldOut | None = None
    backend: str = "auto"
    weights: LayerStats | None = None


@dataclass(frozen=True)
class BlockValues:
    """The values of a metric for one change.

    Attributes:
        layers: [L] float64; 0, the smallest value, for layers without a value. For ``excess`` it is score - 1
            (ddof 0). None: the metric has no values for layers.
        blocks: [B] float64, larger is better; -1, behind all others, for a block that cannot be ranked.
    """

    layers: Tensor | None
    blocks: Tensor


def asks(*facts: str) -> Callable[[Function], Function]:
    """Marks a metric or score that needs more than the aggregate; without the mark it is not computed.

    Args:
        facts: some of `FACTS`.

    Raises:
        InputError: there is no such fact.

    Examples:
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
    """Returns the facts that these metrics need beside the aggregate, and the facts among the names.

    Args:
        names: names of metrics, or of `FACTS`.
        field: the setting or argument that gives the names, for the error.

    Raises:
        InputError: there is no such metric.
    """
    found: set[str] = set()
    for name in names:
        found |= {name} if name in FACTS else set(getattr(find("metric", name, field), "asks", ()))
    return frozenset(found)


def given_to_metric(change: Change) -> dict[str, Tensor | None]:
    """Returns the tensors that a metric or score receives and that others read too."""
    stats = {f"stats.{name}": value for name, value in vars(change.stats).items()}
    held = {name: value for name, value in stats.items() if isinstance(value, Tensor)}
    return {"parameters": change.parameters, "layout.offsets": change.layout.offsets, **held}


def measure(metric: str, change: Change) -> BlockValues:
    """Returns the metric's value for every block, and for every layer if the metric has such values.

    Args:
        metric: a name, or the dotted name of a function (see the top of this module).
        change: the change that is measured.

    Raises:
        InputError: there is no such metric, it raised an error, or its result does not have the shape [B].
    """
    function = find("metric", metric, "metric")
    try:
        with unchanged("metric", metric, "", given_to_metric(change)):
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
    """Checks the result of a user's function and returns it as [B] float64.

    Args:
        field: the setting or argument that gives the function, for the error.
        name: the function's name, for the error.
        found: the result: a tensor, array or list.
        layout: the model's layout.

    Raises:
        InputError: the result has another type or shape.
    """
    blocks = len(layout.blocks)
    try:
        given = torch.as_tensor(found).detach()
        vector = given if given.is_complex() else given.to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(found).__name__
        raise InputError(field, kind, f"{name} to return [{blocks}] numbers; {cause(error)}") from None
    if vector.is_complex():
        raise InputError(field, kind_of(found), f"{name} to return [{blocks}] real numbers")
    if vector.shape != (blocks,):
        raise InputError(field, tuple(vector.shape), f"{name} to return shape ({blocks},), a number a block")
    return vector


def excess(change: Change) -> BlockValues:
    """Ranks by Eq. 1 of FedTLU: (mean/std)^2 (`scores`)."""
    blocks = score_blocks(change.scores, change.scored, change.stats, change.pooling)
    return BlockValues(change.scores.margin, blocks)


def l2_per_parameter(change: Change) -> BlockValues:
    """Ranks by ``||dW|| / sqrt(n)``, Eq. 1 without its std; pooled, in the order of the plain L2 norms."""
    return ratios(change, root_counts(change.scored))


def relative_change(change: Change) -> BlockValues:
    """Ranks by ``||dW|| / ||W||``, where W are the global parameters before the change."""
    weights = change.weights
    if weights is None:
        if change.parameters is None:
            raise InputError("metric", "relative_change", "a change whose parameters before it are known")
        weights = layer_stats(change.parameters, change.scored, backend=change.backend)
    return ratios(change, unit_norms(weights, change.scored))


@asks("client_norms")
def agreement(change: Change) -> BlockValues:
    """Ranks by ``||sum_k n_k d_k|| / sum_k n_k ||d_k||``, where d_k is the change of client k."""
    return ratios(change, change.client_norms)


def ratios(change: Change, scale: Tensor | None) -> BlockValues:
    """Divides the norm of every layer and block by a scale.

    A degenerate layer has the value 0, so that it is never chosen for being degenerate: a layer with fewer
    than two elements, with NaN or Inf, without change, or with a scale of zero (a layer that is all zeros has
    no relative change). A block whose layers are all degenerate, or that holds NaN or Inf, gets -1, as in
    `score_blocks`.

    Args:
        change: the change. If its ``pooling`` is ``mean``, a block's value is the mean over its layers, in
            which a bias counts as much as a matrix; if it is ``pooled``, the block is treated as one long
            layer.
        scale: [L + B], the divisor of each unit's norm: `root_counts`, `unit_norms` of the parameters, or
            `mean_client_norms`.

    Raises:
        InputError: the pooling is unknown, or the scale is missing or has another length.
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
    # NaN or Inf in a layer makes the norms of the layer and its block NaN. A root of 1 is a count of 1.
    regular = (root_counts(layout) > 1) & (norms > 0) & (scale > 0) & (ratio > 0) & torch.isfinite(ratio)
    values = torch.where(regular, ratio, 0.0)
    layers, first = values[: len(layout.layers)], len(layout.layers)
    if pooling == "pooled":
        return BlockValues(layers, torch.where(regular[first:], values[first:], -1.0))
    means = [_mean(layers, norms, block.layers) for block in layout.blocks]
    return BlockValues(layers, torch.tensor(means, dtype=torch.float64))


def _mean(values: Tensor, norms: Tensor, layers: tuple[int, ...]) -> float:
    own = values[list(layers)]
    lost = not bool((own > 0).any()) or not bool(torch.isfinite(norms[list(layers)]).all())
    return -1.0 if lost else float(own.mean())
