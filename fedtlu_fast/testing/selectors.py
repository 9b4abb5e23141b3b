"""The checks of a selector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.randomness import generator
from fedtlu_fast.registry import find
from fedtlu_fast.scoring import LayerStats, layer_stats, score_layers
from fedtlu_fast.scoring.block_metrics import Change, measure
from fedtlu_fast.scoring.units import mean_client_norms, unit_norms
from fedtlu_fast.selection import (
    ClientRoom,
    Evidence,
    Mask,
    Room,
    Selector,
    ServerRoom,
    as_selector,
    chosen_by,
)
from fedtlu_fast.testing.common import CLIENTS, LAYOUT, ConformanceError, bits, found_again, must


def check_selector(
    selector: str | Selector | Callable[[Change], Any], side: Literal["server", "clients"] = "server"
) -> None:
    """Checks a selector: its choices, that it changes nothing, and that other processes can have it.

    The choice is a mask of the right shape, within the room. It is the same bits every time, whatever was
    asked before. Nothing that the selector sees is changed. Metrics that are NaN, and rooms without any
    place, raise nothing. A client's choice does not depend on the other clients, unless `needs_others` or
    `same_for_all` says so. The selector survives pickling, and is found again by its name.

    Args:
        selector: a selector, a score ``(change) -> [B]``, or the name of one.
        side: where it chooses.

    Raises:
        ConformanceError: a promise is broken.
        InputError: there is no such selector, or it needs what that side does not have.
    """
    kind = "selector" if side == "server" else "client_selector"
    given: Any = find(kind, selector, "selector") if isinstance(selector, str) else selector
    made = as_selector(given)
    scenes = _server_scenes if side == "server" else _client_scenes
    choices = [_choice(made, *scene) for scene in scenes(made)]
    for (what, _, _), first, again in zip(
        scenes(made), choices, (_choice(made, *scene) for scene in scenes(made)), strict=True
    ):
        must(np.array_equal(first, again), f"{what}: the same evidence gives another choice the second time")
    if side == "clients":
        _check_rows(made)
    copy = found_again(kind, made)
    for (what, evidence, room), first in zip(scenes(made), choices, strict=True):
        must(
            np.array_equal(_choice(copy, what, evidence, room), first),
            f"{what}: the selector that is found again by its name and parameters chooses otherwise",
        )


Scene = tuple[str, Evidence, Room]


def _server_scenes(selector: Selector) -> Iterator[Scene]:
    sizes = [len(group.blocks) for group in LAYOUT.groups]
    rooms = {"one block of each group": [1, 1], "every block of each group": sizes, "no room": [0, 0]}
    for what, quotas in rooms.items():
        for round_index in (1, 4):
            yield what, _server_evidence(selector, round_index), ServerRoom(LAYOUT, tuple(quotas))
    spoilt = _spoilt(_server_evidence(selector, 2))
    yield "metrics that are NaN", spoilt, ServerRoom(LAYOUT, (2, 1))


def _server_evidence(selector: Selector, round_index: int) -> Evidence:
    draws = generator(0, "conformance", round_index)
    rows = torch.from_numpy(draws.normal(0.1, 1, (CLIENTS, LAYOUT.size))).float()
    weights = torch.arange(1.0, CLIENTS + 1, dtype=torch.float64)
    mean = ((weights / weights.sum())[:, None] * rows).sum(dim=0).float()
    each = _stacked([layer_stats(row, LAYOUT) for row in rows])
    norms = (weights[:, None] * unit_norms(each, LAYOUT)).sum(dim=0)
    change = replace(
        _change(selector, mean, round_index, draws),
        client_norms=mean_client_norms(norms.numpy(), float(weights.sum()), LAYOUT),
        client_stats=each if "client_stats" in selector.asked() else None,
        client_weights=weights,
    )
    metrics = {name: measure(name, change).blocks.numpy()[None, :] for name in selector.metrics}
    return _evidence(metrics, change, round_index, 1)


def _client_scenes(selector: Selector) -> Iterator[Scene]:
    blocks = len(LAYOUT.blocks)
    open_blocks = np.ones(blocks, np.bool_)
    open_blocks[[0, blocks - 1]] = False
    ones, none = np.ones(blocks), np.zeros(blocks)
    rows = 1 if selector.moment == "by_change" else CLIENTS
    budgets = np.full(rows, 3.0) if selector.same_for_all else np.arange(1.0, rows + 1)
    rooms: dict[str, Room] = {
        "budgets of whole blocks": ClientRoom(open_blocks, budgets, ones, none),
        "no open block": ClientRoom(np.zeros(blocks, np.bool_), budgets, ones, none),
    }
    if not selector.same_for_all:
        shares, reach = np.linspace(0.1, 0.3, blocks), np.linspace(0.3, 0.0, blocks)
        rooms["budgets of FLOPs"] = ClientRoom(open_blocks, budgets / 5, shares, reach)
        rooms["no room"] = ClientRoom(open_blocks, np.zeros(rows), ones, none)
    for what, room in rooms.items():
        for round_index in (1, 4):
            yield what, _client_evidence(selector, round_index, range(rows)), room
    yield "metrics that are NaN", _spoilt(_client_evidence(selector, 2, range(rows))), rooms["no open block"]


def _client_evidence(selector: Selector, round_index: int, clients: Sequence[int]) -> Evidence:
    table = generator(0, "conformance", round_index).gamma(1.0, size=(CLIENTS, len(LAYOUT.blocks)))
    metrics = {name: table[list(clients)] * (at + 1) for at, name in enumerate(selector.own_metrics)}
    metrics |= {name: table[:1] for name in selector.metrics if name not in selector.own_metrics}
    change = None
    if selector.moment == "by_change":
        draws = generator(0, "conformance", round_index, 1)
        vector = torch.from_numpy(draws.normal(0, 1, LAYOUT.size)).float()
        change = _change(selector, vector, round_index, draws)
    return _evidence(metrics, change, round_index, len(clients), clients)


def _change(selector: Selector, vector: Tensor, round_index: int, draws: np.random.Generator) -> Change:
    stats = layer_stats(vector, LAYOUT)
    return Change(
        layout=LAYOUT,
        stats=stats,
        scores=score_layers(stats, selector.ddof),
        parameters=torch.from_numpy(draws.normal(0, 1, LAYOUT.size)).float(),
        scored=LAYOUT,
        pooling=selector.pooling,
        round=round_index,
        last_choice=_last(round_index),
    )


def _evidence(
    metrics: dict[str, Any],
    change: Change | None,
    round_index: int,
    rows: int,
    clients: Sequence[int] = (),
) -> Evidence:
    return Evidence(
        layout=LAYOUT,
        metrics=metrics,
        generator=generator(0, "conformance choice", round_index),
        rows=rows,
        round=round_index,
        generators=[generator(0, "conformance blocks", round_index, client) for client in clients],
        change=change,
        parameters=torch.linspace(-1, 1, LAYOUT.size),
        last_choice=_last(round_index),
    )


def _last(round_index: int) -> Mask | None:
    return None if round_index == 1 else np.arange(len(LAYOUT.blocks)) % 2 == 0


def _spoilt(evidence: Evidence) -> Evidence:
    """The same evidence with NaN in a block of every row."""
    metrics = {name: own.copy() for name, own in evidence.metrics.items()}
    for own in metrics.values():
        own[:, 2] = np.nan
    return replace(evidence, metrics=metrics)


def _stacked(rows: Sequence[LayerStats]) -> LayerStats:
    names = ("count", "mean", "std", "l2", "abs_max", "nonfinite")
    columns = [torch.stack([getattr(row, name).double() for row in rows]) for name in names]
    return LayerStats(LAYOUT.names, *columns)


def _choice(selector: Selector, what: str, evidence: Evidence, room: Room) -> Mask:
    """The selector's choice, with nothing of what it saw changed."""
    before = bits([evidence.metrics, evidence.change, evidence.parameters, evidence.last_choice, room])
    try:
        mask = chosen_by(selector, evidence, room).copy()
    except InputError as error:
        raise ConformanceError(f"{what}: {error}") from error
    except Exception as error:
        raise ConformanceError(f"{what}: choose raised {cause(error)}") from error
    seen = [evidence.metrics, evidence.change, evidence.parameters, evidence.last_choice, room]
    must(bits(seen) == before, f"{what}: choose changed what it was given")
    if selector.budgeted and "NaN" not in what:
        must(room.kept(mask), f"{what}: the choice takes more than there is room for")
    return mask


def _check_rows(selector: Selector) -> None:
    """A client's choice is its own, or the same for all, as the selector says."""
    if selector.moment == "by_change":
        return
    blocks = len(LAYOUT.blocks)
    whole = np.ones(blocks, np.bool_)

    def room_of(rows: int) -> ClientRoom:
        return ClientRoom(whole, np.full(rows, 3.0), np.ones(blocks), np.zeros(blocks))

    clients = range(CLIENTS)
    together = _choice(selector, "clients together", _client_evidence(selector, 4, clients), room_of(CLIENTS))
    if selector.same_for_all:
        must(bool((together == together[0]).all()), "same_for_all is set, and clients get different choices")
    elif selector.needs_others is None:
        for client in clients:
            alone = _choice(selector, "a client alone", _client_evidence(selector, 4, [client]), room_of(1))
            same = np.array_equal(alone[0], together[client])
            must(same, "a client alone chooses otherwise than among others, and needs_others is None")
