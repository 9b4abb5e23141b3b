"""The interface of metrics that rank blocks; ours are in `scoring.metrics`.

A metric is a function of a `Change`. It returns `BlockValues`, or a tensor or array [B] in which larger is
better. A function of your own is given by its dotted name. `asks` names the facts that it needs beside the
aggregated change.

Norms are those of units (`units`): vectors [L + B] float64 on the CPU, first the L layers, then the B blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.errors import InputError, cause, kind_of, not_one_of
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.registry import find
from fedtlu_fast.scoring.client_values import ClientValues
from fedtlu_fast.scoring.held_out import HeldOut
from fedtlu_fast.scoring.scores import LayerScores, Pooling
from fedtlu_fast.scoring.statistics import LayerStats
from fedtlu_fast.unchanged import unchanged

OF_CLIENTS = ("client_norms", "client_stats", "client_values")
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
        pooling: how a block's value is computed from its layers; see `metrics.units.from_units`.
        round: the number of the round, from 1.
        last_choice: [B] bool, the blocks that were applied in the round before; None before round 2.
        client_norms: [L + B] float64, ``sum_k n_k ||d_k|| / sum_k n_k`` of every unit; None unless asked for.
        client_stats: [K, L], statistics of the change of each accepted client, in the order of the cohort;
            None unless asked for.
        client_values: [K, S], values of their changes at places that are the same for all; None unless asked
            for.
        client_weights: [K] float64, their weights; None unless `client_stats` or `client_values` is there.
        client_sent: [K, B] bool, the blocks that each of them sent. Of other blocks it has no change, and its
            statistics there are those of zeros. None: everybody sent everything, or `client_weights` are not
            there.
        held_out: losses on a sample that the server holds, or that the client keeps back; None unless asked
            for.
        backend: the backend that runs the kernels.
        weights: [L] float64 on the CPU, statistics of the parameters before the change; None if they are not
            known, or can be computed from `parameters`.
        vector: [P], the change itself; None where only its statistics are known. Do not change it.
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
    client_values: ClientValues | None = None
    client_weights: Tensor | None = None
    client_sent: Tensor | None = None
    held_out: HeldOut | None = None
    backend: str = "auto"
    weights: LayerStats | None = None
    vector: Tensor | None = None


@dataclass(frozen=True)
class BlockValues:
    """The values of a metric for one change.

    Attributes:
        layers: [L] float64; 0 for layers without a value. For ``excess`` it is score - 1 (ddof 0). None: the
            metric has no values for layers.
        blocks: [B] float64, larger is better; -1 for a block that cannot be ranked, or less where others have
            -1 or less, so that it is behind all others.
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


def named(facts: Collection[str]) -> str:
    """Returns what these facts are, for an error of a caller that does not have them; one or more of them."""
    return "samples held by the server" if "held_out" in facts else "facts about single clients"


def aggregate_only(metric: str) -> bool:
    """Tells whether a metric needs only the aggregated change, and so works with secure aggregation.

    Args:
        metric: a name, or the dotted name of a function.

    Raises:
        InputError: there is no such metric.
    """
    return not asked_by((metric,), "metric")


def given_to_metric(change: Change) -> dict[str, Tensor | None]:
    """Returns the tensors that a metric or score receives and that others read too."""
    tables = {"stats": change.stats, "client_stats": change.client_stats}
    rows = {
        f"{table}.{name}": value
        for table, stats in tables.items()
        for name, value in (vars(stats) if stats is not None else {}).items()
        if isinstance(value, Tensor)
    }
    names = ("parameters", "vector", "client_norms", "client_weights", "client_sent")
    given = {name: getattr(change, name) for name in names} | {"layout.offsets": change.layout.offsets} | rows
    if change.client_values is not None:
        given["client_values.values"] = change.client_values.values
    return given


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
        fix = missing_fact(function, change, error)
        raise InputError("metric", metric, f"a function of a Change; {cause(error)}", fix) from error
    return (
        found
        if isinstance(found, BlockValues)
        else BlockValues(None, block_vector("metric", metric, found, change.layout))
    )


def missing_fact(function: Any, change: Change, error: BaseException) -> str:
    """Says how a user's function gets a fact that it used without asking for it; empty if that is not why.

    Args:
        function: the metric or score.
        change: what it was given.
        error: what it raised.
    """
    if "NoneType" not in str(error):
        return ""
    function = getattr(function, "func", function)  # of a partial
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    if not {"client_stats", "client_values"} & set(names) and {"client_weights", "client_sent"} & set(names):
        names = (*names, "client_stats")  # they come with it
    lacking = [
        fact for fact in FACTS if getattr(change, fact) is None and fact not in getattr(function, "asks", ())
    ]
    used = [fact for fact in lacking if fact in names]
    if not used:
        return ""
    facts = ", ".join(f'"{fact}"' for fact in used)
    return f"Put @asks({facts}) of fedtlu_fast.scoring.block_metrics above it: it gets what it asks for."


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
