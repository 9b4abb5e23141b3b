"""Makes one case per operation: its methods on one change, their errors, and the bytes that must move."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.ops import checks, dispatch
from fedtlu_fast.ops.moments import Moments
from fedtlu_fast.profiling.accuracy import (
    Accuracy,
    element_error,
    excess_of,
    in_parts,
    misranked,
    oracle_excess,
    ratio_error,
)
from fedtlu_fast.profiling.bandwidth import Traffic
from fedtlu_fast.profiling.rivals import COMPILED, FLOAT32_LOOP, STD_MEAN_LOOP, aggregate_rivals, stats_rivals
from fedtlu_fast.profiling.shapes import random_clients
from fedtlu_fast.scoring import layer_stats, score_layers

OURS = "fedtlu "

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """Holds the inputs of a case.

    Attributes:
        change: the change, [P].
        layout: the layout of its layers.
        backends: the backends to measure.
        clients: K, for the operations that take several.
        tell: called with a note about a method that is left out.
    """

    change: Tensor
    layout: ParameterLayout
    backends: Sequence[str]
    clients: int
    tell: Tell

    @property
    def wide(self) -> torch.dtype:
        """Returns the dtype of the vector that the change is added to."""
        return checks.TARGETS[self.change.dtype]


@dataclass(frozen=True)
class Case:
    """Holds methods that have been called once, with their accuracy; names of ours begin with `OURS`."""

    methods: dict[str, Callable[[], object]]
    accuracy: dict[str, Accuracy]
    traffic: Traffic


def stats_case(subject: Subject, separate: bool = False) -> Case:
    """Makes the case of `layer_stats` and Eq. 1, of the flat change or of `separate` tensors: reads P."""
    change, layout = subject.change, subject.layout
    named = layout.views(change)
    if separate:
        named = {name: layer.clone() for name, layer in named.items()}
    layers = list(named.values())
    oracle = oracle_excess(layers)

    def ours(backend: str) -> Tensor:
        stats = layer_stats(named if separate else change, None if separate else layout, backend=backend)
        return score_layers(stats).excess

    finders: dict[str, Callable[[], Tensor]] = {
        **{OURS + name: partial(ours, name) for name in subject.backends},
        **{name: partial(rival, layers) for name, rival in stats_rivals(layers, subject.tell).items()},
    }
    accuracy = {}
    for name, find in finders.items():
        excess = find().cpu()
        accuracy[name] = Accuracy(None, ratio_error(excess, oracle), misranked(excess, oracle, layout))
    return Case(dict(finders), accuracy, Traffic(_bytes(change), 0))


def accumulate_case(subject: Subject, stats: bool = False) -> Case:
    """Makes the case of ``aggregate += weight * (client - base)``, with or without `stats`.

    It reads three vectors and writes one.

    The rivals of the fused form add, and then compute the statistics with a loop.
    """
    client, layout, weight = subject.change, subject.layout, 0.25
    base = client.roll(layout.size // 3)
    start = client.flip(0).to(subject.wide)
    expected = start.double()
    for total, here, before in zip(*map(in_parts, (expected, client, base)), strict=True):
        total.add_(here.double().sub_(before).mul_(weight))

    def ours(aggregate: Tensor, backend: str) -> Moments | None:
        if not stats:
            dispatch.accumulate_(aggregate, client, base, weight, backend)
            return None
        return dispatch.accumulate_(aggregate, client, base, weight, backend, offsets=layout.offsets)

    def add(aggregate: Tensor) -> None:
        aggregate.add_(client - base, alpha=weight)

    def add_wide(aggregate: Tensor) -> None:
        aggregate.add_(client.to(aggregate.dtype) - base, alpha=weight)

    sums = {"torch add_": add}
    if client.dtype != subject.wide:
        sums["torch add_, widened first"] = add_wide
    updates: dict[str, _Update] = {OURS + name: partial(ours, backend=name) for name in subject.backends}
    if not stats:
        updates |= sums
    else:
        loops = stats_rivals(list(layout.views(start).values()), subject.tell)
        for name in (FLOAT32_LOOP, STD_MEAN_LOOP, COMPILED):
            if name in loops:
                # Only the last way to add is exact; only these loops may be the fastest.
                followed = partial(_followed, list(sums.values())[-1], loops[name], layout)
                updates[f"torch add_ + {name.removeprefix('torch ')}"] = followed
    moved = Traffic(2 * _bytes(client) + _bytes(start), _bytes(start), in_place=True)
    return _update_case(updates, start, expected, layout if stats else None, moved)


def _followed(
    update: Callable[[Tensor], None],
    rival: Callable[[Sequence[Tensor]], Tensor],
    layout: ParameterLayout,
    vector: Tensor,
) -> Tensor:
    """Runs an update and then computes the statistics of the vector: (mean/std)^2, [L]."""
    update(vector)
    return rival(list(layout.views(vector).values()))


def apply_case(subject: Subject) -> Case:
    """Makes the case of ``params += delta`` for every third layer: it reads two vectors there, writes one."""
    delta, layout = subject.change, subject.layout
    mask = torch.arange(len(layout.layers)) % 3 == 0
    places = [
        slice(layer.offset, layer.offset + layer.numel)
        for layer, wanted in zip(layout.layers, mask.tolist(), strict=True)
        if wanted
    ]
    start = delta.flip(0).to(subject.wide)
    expected = start.double()
    for place in places:
        expected[place] += delta[place]
    moved = sum(place.stop - place.start for place in places)

    def ours(params: Tensor, backend: str) -> None:
        dispatch.masked_apply_(params, delta, layout.offsets, mask, 1.0, backend)

    def by_loop(params: Tensor) -> None:
        for place in places:
            params[place].add_(delta[place])

    def by_foreach(params: Tensor) -> None:
        torch._foreach_add_([params[place] for place in places], [delta[place] for place in places])

    updates: dict[str, _Update] = {
        **{OURS + name: partial(ours, backend=name) for name in subject.backends},
        "torch loop": by_loop,
        "torch foreach_add_": by_foreach,
    }
    wide = moved * start.element_size()
    return _update_case(
        updates, start, expected, None, Traffic(moved * delta.element_size() + wide, wide, in_place=True)
    )


_Update = Callable[[Tensor], Moments | Tensor | None]


def _update_case(
    updates: Mapping[str, _Update],
    start: Tensor,
    expected: Tensor,
    layout: ParameterLayout | None,
    traffic: Traffic,
) -> Case:
    """Holds updates of a vector that starts as `start`; with `layout` they also compute its statistics."""
    oracle = _oracle_of(expected, start.dtype, layout) if layout else None
    scratch = torch.empty_like(start)
    accuracy = {}
    for name, update in updates.items():
        found = update(scratch.copy_(start))
        ratio, wrong = _against(found, oracle, layout)
        accuracy[name] = Accuracy(element_error(scratch, expected), ratio, wrong)
    return Case({name: partial(update, scratch) for name, update in updates.items()}, accuracy, traffic)


def aggregate_case(subject: Subject, client_stats: bool | Literal["norms"] = False) -> Case:
    """Makes the case of ``sum_k weights[k] * clients[k]`` with statistics: it reads K * P, writes P.

    Most rivals only aggregate; one computes the norms and standard deviations that are asked for, too.
    """
    layout, number = subject.layout, subject.clients
    clients = random_clients(subject.change, number)
    counts = [50 + 7 * (index % 11) for index in range(number)]
    weights = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    out = torch.empty(layout.size, dtype=subject.wide, device=clients.device)
    expected = torch.zeros_like(out, dtype=torch.float64)
    for client, weight in zip(clients, weights.tolist(), strict=True):
        for total, part in zip(in_parts(expected), in_parts(client), strict=True):
            total.add_(part.double().mul_(weight))
    oracle = _oracle_of(expected, out.dtype, layout)
    # Only for the first and the last client: float64 takes longer than all measurements.
    ends = [oracle_excess(list(layout.views(clients[at]).values())) for at in (0, -1) if client_stats is True]

    def ours(backend: str) -> tuple[Tensor, Moments, Moments | Tensor | None]:
        return dispatch.aggregate(
            clients, weights, layout.offsets, out=out, client_stats=client_stats, backend=backend
        )

    methods: dict[str, Callable[[], object]] = {}
    accuracy = {}
    for name in subject.backends:
        methods[OURS + name] = partial(ours, name)
        out.fill_(torch.nan)  # so that a method cannot pass with the result of the one before
        _, moments, each = ours(name)
        ratio, wrong = _against(moments, oracle, layout)
        if isinstance(each, Moments):
            ratio = max(ratio or 0.0, ratio_error(excess_of(each)[[0, -1]], torch.stack(ends)))
        accuracy[OURS + name] = Accuracy(element_error(out, expected), ratio, wrong)
    for name, rival in aggregate_rivals(clients, counts, layout, out, subject.tell, client_stats).items():
        methods[name] = rival
        out.fill_(torch.nan)
        found = rival()
        whole = found if isinstance(found, Tensor) else torch.cat([part.reshape(-1) for part in found])
        accuracy[name] = Accuracy(element_error(whole, expected))
    return Case(methods, accuracy, Traffic(_bytes(clients), _bytes(out)))


def _oracle_of(expected: Tensor, dtype: torch.dtype, layout: ParameterLayout) -> Tensor:
    """Returns (mean/std)^2 [L] of the exact vector after one rounding: the vector that is scored."""
    return oracle_excess(list(layout.views(expected.to(dtype)).values()))


def _against(
    found: Moments | Tensor | None, oracle: Tensor | None, layout: ParameterLayout | None
) -> tuple[float | None, int | None]:
    """Returns `ratio_error` and `misranked` of a method's statistics, if it computes any."""
    if found is None or oracle is None or layout is None:
        return None, None
    excess = (excess_of(found) if isinstance(found, Moments) else found).cpu()
    return ratio_error(excess, oracle), misranked(excess, oracle, layout)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
