"""What the checks of a selector show it: evidence and rooms, of the server and of clients."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import generator
from fedtlu_fast.scoring import LayerStats, layer_stats, score_layers
from fedtlu_fast.scoring.block_metrics import Change, measure
from fedtlu_fast.scoring.client_values import ClientValues, places_in, read_at
from fedtlu_fast.scoring.held_out import check_blocks
from fedtlu_fast.scoring.units import mean_client_norms, unit_norms
from fedtlu_fast.selection import ClientRoom, Evidence, Mask, Room, Selector, ServerRoom
from fedtlu_fast.testing.common import CLIENTS, LAYOUT

Scene = tuple[str, Evidence, Room]


def server_scenes(selector: Selector) -> Iterator[Scene]:
    """Yields evidence of single rounds, and the server's rooms."""
    sizes = [len(group.blocks) for group in LAYOUT.groups]
    rooms = {"one block of each group": [1, 1], "every block of each group": sizes, "no room": [0, 0]}
    for what, quotas in rooms.items():
        for round_index in (1, 4):
            yield what, server_evidence(selector, round_index), ServerRoom(LAYOUT, tuple(quotas))
    yield "metrics that are NaN", spoilt(server_evidence(selector, 2)), ServerRoom(LAYOUT, (2, 1))


def server_evidence(selector: Selector, round_index: int) -> Evidence:
    """Returns what the server knows in a round, with the facts that the selector asks for."""
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
        client_values=_values(rows, round_index) if "client_values" in selector.asked() else None,
        client_weights=weights,
        held_out=_sample(draws) if "held_out" in selector.asked() else None,
    )
    metrics = {name: measure(name, change).blocks.numpy()[None, :] for name in selector.metrics}
    return _evidence(metrics, change, round_index, 1)


def _values(rows: Tensor, round_index: int) -> ClientValues:
    """Of the clients' changes [K, P]."""
    places = places_in(LAYOUT, 0, round_index)
    return ClientValues.of(read_at(places, rows, torch.zeros(LAYOUT.size)), LAYOUT)


def client_scenes(selector: Selector) -> Iterator[Scene]:
    """Yields evidence of single rounds, and the clients' rooms."""
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
            yield what, client_evidence(selector, round_index, range(rows)), room
    yield "metrics that are NaN", spoilt(client_evidence(selector, 2, range(rows))), rooms["no open block"]


def client_evidence(selector: Selector, round_index: int, clients: Sequence[int]) -> Evidence:
    """Returns what these clients know in a round."""
    table = generator(0, "conformance", round_index).gamma(1.0, size=(CLIENTS, len(LAYOUT.blocks)))
    metrics = {name: table[list(clients)] * (at + 1) for at, name in enumerate(selector.own_metrics)}
    metrics |= {name: table[:1] for name in selector.metrics if name not in selector.own_metrics}
    change = None
    if selector.moment == "by_change":
        draws = generator(0, "conformance", round_index, 1)
        vector = torch.from_numpy(draws.normal(0, 1, LAYOUT.size)).float()
        change = _change(selector, vector, round_index, draws)
        if selector.needs_samples:
            change = replace(change, held_out=_sample(draws, of_client=True))
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
        vector=vector,
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


def _sample(draws: np.random.Generator, *, of_client: bool = False) -> Sample:
    return Sample(tuple(draws.normal(0.1, 0.2, len(LAYOUT.blocks)).tolist()), of_client)


def _last(round_index: int) -> Mask | None:
    return None if round_index == 1 else np.arange(len(LAYOUT.blocks)) % 2 == 0


def spoilt(evidence: Evidence) -> Evidence:
    """The same evidence with NaN in a block of every row."""
    metrics = {name: own.copy() for name, own in evidence.metrics.items()}
    for own in metrics.values():
        own[:, 2] = np.nan
    return replace(evidence, metrics=metrics)


def _stacked(rows: Sequence[LayerStats]) -> LayerStats:
    names = ("count", "mean", "std", "l2", "abs_max", "nonfinite")
    columns = [torch.stack([getattr(row, name).double() for row in rows]) for name in names]
    return LayerStats(LAYOUT.names, *columns)


@dataclass(frozen=True)
class Sample:
    """Implements `scoring.held_out.HeldOut` with losses that are drawn, not computed.

    Attributes:
        gains: by how much each block lowers the loss, by its index; two blocks together lower it by less.
        of_client: whether it is a client's, which may ask for any block.
    """

    gains: tuple[float, ...]
    of_client: bool = False

    def loss(self, blocks: Collection[int]) -> float:
        """See `HeldOut`.

        Raises:
            InputError: one of them is no block, or, on the server, is in no group of like blocks.
        """
        check_blocks(blocks, LAYOUT)
        own = sorted(set(blocks))
        if not self.of_client and (alone := set(own) & set(LAYOUT.unique)):
            expected = "blocks that are in a group of like blocks"
            raise InputError("blocks", LAYOUT.blocks[min(alone)].name, expected)
        return 3.0 - sum(self.gains[block] for block in own) + 0.01 * len(own) ** 2

    def gradient(self) -> Tensor:
        """See `HeldOut`."""
        return torch.linspace(-1, 1, LAYOUT.size)
