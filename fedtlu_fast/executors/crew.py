"""Sharing lanes out to workers that may be lost, and taking their results in order."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from fedtlu_fast.errors import LESS_MEMORY, ClientError, WorkerError
from fedtlu_fast.executors.lanes import ClientReports, Lane, LaneResult

logger = logging.getLogger("fedtlu_fast")


@dataclass(frozen=True)
class Policy:
    """Says what to do about lost workers and slow clients.

    Attributes:
        retries: how often a lane that lost its worker is trained again.
        client_seconds: the number of seconds that a client may take; None: no limit.
        client_errors: whether a client that takes too long stops the run or is left out.
    """

    retries: int = 3
    client_seconds: float | None = None
    client_errors: Literal["stop", "drop"] = "stop"


@dataclass(frozen=True)
class Done:
    """A worker has trained its lane."""

    worker: int
    result: LaneResult


@dataclass(frozen=True)
class Lost:
    """A worker is gone, and the lane it was training with it.

    Attributes:
        worker: which.
        reason: why, as far as it is known.
        client: the one it was training, if known.
        hung: whether it was stopped because that client took too long.
    """

    worker: int
    reason: str
    client: int | None = None
    hung: bool = False


class Crew(Protocol):
    """Workers that train lanes."""

    def idle(self) -> list[int]:
        """Those that can take a lane now."""
        ...

    def give(self, worker: int, lane: Lane) -> None:
        """Has a worker train a lane."""
        ...

    def wait(self) -> list[Done | Lost]:
        """Waits until something has happened; errors that a worker reports are raised here."""
        ...

    def release(self, result: LaneResult) -> None:
        """The result has been used: its memory is free."""
        ...

    def replace(self, worker: int) -> None:
        """Starts another in place of a lost one."""
        ...


def train_in_order(crew: Crew, lanes: Sequence[Lane], policy: Policy) -> Iterator[LaneResult]:
    """Trains lanes by a crew; what a lost worker had not finished is trained again, to the same bits.

    Args:
        crew: who trains.
        lanes: in order.
        policy: what becomes of lost workers and of clients that take too long.

    Returns:
        The results in the order of the lanes, each valid until the next is asked for.

    Raises:
        ClientError: a client takes too long, and the settings say to stop.
        WorkerError: a lane has lost more workers than `policy.retries`.
    """
    waiting, at_work = deque(lanes), dict[int, Lane]()
    ready: dict[int, LaneResult] = {}
    losses: Counter[int] = Counter()
    hung: dict[int, dict[int, str]] = {}
    for expected in range(len(lanes)):
        while expected not in ready:
            for worker in crew.idle():
                if waiting:
                    at_work[worker] = waiting.popleft()
                    crew.give(worker, at_work[worker])
            for event in crew.wait():
                lane = at_work.pop(event.worker)
                if isinstance(event, Done):
                    ready[lane.index] = event.result
                    continue
                losses[lane.index] += not event.hung
                _check(event, lane, losses[lane.index], policy)
                if event.hung and event.client is not None:
                    hung.setdefault(lane.index, {})[event.client] = event.reason
                    lane = replace(lane, clients=tuple(c for c in lane.clients if c != event.client))
                logger.warning("a worker was lost (%s); its clients are trained again", event.reason)
                waiting.appendleft(lane)
                crew.replace(event.worker)
        result = ready.pop(expected)
        yield _with_failed(result, hung.get(expected, {}))
        crew.release(result)


def _check(event: Lost, lane: Lane, losses: int, policy: Policy) -> None:
    if event.hung and event.client is not None:
        if policy.client_errors == "stop":
            raise ClientError(event.client, lane.round, event.reason)
        return
    if losses > policy.retries:
        client = f", while it trained client {event.client}" if event.client is not None else ""
        raise WorkerError(
            f"round {lane.round}: the same lane has lost {losses} workers{client}: {event.reason}. "
            f"If memory is short, {LESS_MEMORY}"
        )


def _with_failed(result: LaneResult, failed: dict[int, str]) -> LaneResult:
    if not failed:
        return result
    reports = ClientReports()
    reports.extend(result.reports)
    for client, reason in failed.items():
        reports.fail(client, reason)
    return replace(result, reports=reports)
