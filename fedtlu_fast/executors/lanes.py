"""Lanes: the fixed pieces in which a cohort is trained and summed.

A cohort is cut into lanes, consecutive clients, by its size and the settings alone. A lane's clients are
summed in order, and the lanes are summed in order: so the result has the same bits for any number of
workers, and after any of them was lost. Each worker needs memory for a vector or two, whatever the cohort.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.client_steps.client_round import StepMemories
from fedtlu_fast.client_steps.orders import Orders
from fedtlu_fast.client_steps.sequence import Broadcast
from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.data.population import as_tensor
from fedtlu_fast.scoring import LayerStats


@dataclass(frozen=True)
class Lane:
    """Consecutive clients of a round's cohort.

    Attributes:
        round: which round.
        index: which lane of it, from 0.
        clients: their numbers, in the order of averaging.
        orders: which blocks they train and send; None for all.
        probing: whether they only measure their gradients at the global parameters, and do not train.
        memory: what the client steps remember of each client, by number.
        broadcast: what the server tells all clients, by the step's name.
        largest: weight that no client exceeds in the mean, see `aggregation.share`.
    """

    round: int
    index: int
    clients: tuple[int, ...]
    orders: Orders | None = None
    probing: bool = False
    memory: Mapping[int, StepMemories] = field(default_factory=dict, compare=False)
    broadcast: Broadcast = field(default_factory=dict, compare=False)
    largest: float = inf

    def weight(self, samples: int) -> float:
        """What a client that holds so many samples counts in the mean."""
        return min(samples, self.largest)


@dataclass
class ClientReports:
    """What is known of the clients of a lane, apart from their vectors; one entry for each client.

    Attributes:
        clients: their numbers.
        samples: what they hold.
        losses: mean training losses; NaN for those that failed.
        accepted: whether the change was averaged in; False for those that are not sound (`soundness`), or
            failed.
        weights: what each counts in the mean: its samples, or less where the lane has a limit.
        failed: of those that failed, why.
        norms: ``sum_k n_k ||d_k||`` over the accepted ones for every layer and block (`scoring.units`), with
            the weights n_k, [L + B] float64; None unless it was asked for and there is one.
        stats: statistics of the layers of each accepted client's change, by its number: [6, L] float64, with
            the rows count, mean, std, l2, abs_max and nonfinite; empty unless they were asked for.
        values: the values [S] float32 of each accepted client's change at the places of the round
            (`client_values`), by its number; empty unless they were asked for.
        sent: the blocks that each client sent, by its number; only of clients under `Orders`.
        gains: [B] float64 of each client that probed.
        memory: what the client steps remember anew, by client and by the step's name.
    """

    clients: list[int] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    accepted: list[bool] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    norms: NDArray[np.float64] | None = None
    stats: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    values: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    sent: dict[int, Blocks] = field(default_factory=dict)
    gains: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    memory: dict[int, StepMemories] = field(default_factory=dict)

    def add(
        self, client: int, samples: int, loss: float, accepted: bool, weight: float | None = None
    ) -> None:
        """One more client that was trained; without a weight it counts by its samples."""
        self.clients.append(client)
        self.samples.append(samples)
        self.losses.append(loss)
        self.accepted.append(accepted)
        self.weights.append(samples if weight is None else weight)

    def refuse(self, clients: Collection[int]) -> None:
        """Takes back that the changes of these clients were accepted."""
        pairs = zip(self.clients, self.accepted, strict=True)
        self.accepted = [accepted and client not in clients for client, accepted in pairs]

    def fail(self, client: int, reason: str) -> None:
        """One more client, which could not be trained."""
        self.add(client, 0, float("nan"), False)
        self.failed[client] = reason

    def add_norms(self, norms: NDArray[np.float64]) -> None:
        """Adds ``n_k ||d_k||`` of one client, or the sum of some, to `norms`."""
        # No tensor: torch would send one between processes through a file of shared memory.
        self.norms = norms if self.norms is None else self.norms + norms

    def add_stats(self, client: int, stats: LayerStats) -> None:
        """Keeps the statistics [L] of one client's change."""
        rows = (stats.count, stats.mean, stats.std, stats.l2, stats.abs_max, stats.nonfinite)
        self.stats[client] = np.stack([row.double().numpy() for row in rows])

    def extend(self, other: ClientReports) -> None:
        """The clients of another lane."""
        self.clients += other.clients
        self.samples += other.samples
        self.losses += other.losses
        self.accepted += other.accepted
        self.weights += other.weights
        self.failed |= other.failed
        self.stats |= other.stats
        self.values |= other.values
        self.sent |= other.sent
        self.gains |= other.gains
        self.memory |= other.memory
        if other.norms is not None:
            self.add_norms(other.norms)

    @property
    def total(self) -> float:
        """Weights of the accepted clients together: what their sum is to be divided by."""
        return sum(n for n, accepted in zip(self.weights, self.accepted, strict=True) if accepted)

    def totals(self, blocks: int) -> NDArray[np.float64]:
        """[B]: weights of the accepted clients that sent each block."""
        totals = np.zeros(blocks)
        for client, weight, accepted in zip(self.clients, self.weights, self.accepted, strict=True):
            if accepted:
                totals[list(self.sent[client])] += weight
        return totals

    @property
    def averaged(self) -> list[int]:
        """The accepted clients, in the order of averaging."""
        return [client for client, accepted in zip(self.clients, self.accepted, strict=True) if accepted]

    @property
    def refused(self) -> list[int]:
        """Those that were trained and not accepted."""
        pairs = zip(self.clients, self.accepted, strict=True)
        return [client for client, accepted in pairs if not accepted and client not in self.failed]

    @property
    def loss(self) -> float:
        """Mean loss of the accepted clients, weighted like their changes; NaN when there is none."""
        rows = zip(self.weights, self.losses, self.accepted, strict=True)
        weighted = sum(n * loss for n, loss, accepted in rows if accepted)
        return weighted / self.total if self.total else float("nan")


@dataclass(frozen=True)
class LaneResult:
    """What training a lane gave.

    Attributes:
        lane: the lane.
        vectors: ``sum_k n_k (w_k - w)`` over its accepted clients, with their weights n_k; or, with `single`,
            that client's own vectors w_k, so that a lane of one client costs nothing. Valid until the next
            result is asked for.
        single: see `vectors`.
        reports: of its clients.
    """

    lane: Lane
    vectors: Vectors
    single: bool
    reports: ClientReports

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes go copies: the next lane uses this memory again. What was sent stays there."""
        arrays = tuple(vector.cpu().numpy() for vector in self.vectors)
        lane = replace(self.lane, orders=None, memory={}, broadcast={})
        return _from_arrays, (lane, arrays, self.single, self.reports)


def _from_arrays(
    lane: Lane, arrays: tuple[NDArray[np.float32], NDArray[np.float32]], single: bool, reports: ClientReports
) -> LaneResult:
    return LaneResult(lane, (as_tensor(arrays[0]), as_tensor(arrays[1])), single, reports)


def cut(
    round_index: int,
    cohort: Sequence[int],
    lanes: int,
    clients_per_batch: int = 1,
    orders: Orders | None = None,
    probing: bool = False,
    memory: Mapping[int, StepMemories] | None = None,
    broadcast: Broadcast | None = None,
    largest: float = inf,
) -> list[Lane]:
    """The lanes of a cohort: at most `lanes`, and no more than it has batches of `clients_per_batch`.

    Args:
        round_index: of the round.
        cohort: its clients.
        lanes: how many; as many as there are clients give a lane for each, whose vectors come one by one.
        clients_per_batch: how many clients are trained in one call.
        orders: of the clients; each lane gets those of its own.
        probing: see `Lane`.
        memory: of any clients; each lane gets that of its own.
        broadcast: see `Lane`.
        largest: see `Lane`.
    """
    parts = np.array_split(
        np.asarray(cohort, dtype=np.int64), min(lanes, -(-len(cohort) // clients_per_batch))
    )
    members = [tuple(part.tolist()) for part in parts]
    held = memory or {}
    return [
        Lane(
            round_index,
            index,
            clients,
            None if orders is None else orders.of(clients),
            probing,
            {client: held[client] for client in clients if client in held},
            broadcast or {},
            largest,
        )
        for index, clients in enumerate(members)
    ]
