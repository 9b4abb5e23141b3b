"""Signs of life: how a worker says what it is doing, and how long it may go without saying more."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

SILENCE = 2.0
"""Seconds that a worker may take between two clients, however little time a client has: it may have to wait
for a busy machine."""


class Watch(Protocol):
    """Called by whoever trains, before every client."""

    def __call__(self, client: int, together: int = 1) -> None:
        """Takes a sign of life.

        Args:
            client: its number; -1 when no client can be named.
            together: how many clients the time until the next sign is for: those trained at once.
        """
        ...


class Sign(NamedTuple):
    """A worker's last sign of life; see `Watch`.

    Attributes:
        client: which client it has begun, or -1.
        together: how many clients it has begun.
        stamp: the time, by the worker's clock; only for telling two signs apart.
    """

    client: int
    together: int
    stamp: float


def allowed(limit: float, client: int, together: int) -> float:
    """Seconds until the next sign is due, where each client has `limit` seconds."""
    return limit if client >= 0 else max(limit * together, SILENCE)


class Patience:
    """Adds up how long each worker has given no new sign.

    Time counts only while this process looks on. A run that was stopped as a whole and goes on (Ctrl-Z, then
    fg) or a machine that slept blames no client.
    """

    def __init__(self) -> None:
        self._waited: dict[int, tuple[Sign, float]] = {}
        self._looked = time.monotonic()

    def late(self, signs: Mapping[int, Sign], limit: float, between: float) -> list[int]:
        """The workers whose next sign is overdue.

        Args:
            signs: the last sign of every worker that has work.
            limit: seconds for a client.
            between: about how many seconds pass between two calls; of longer pauses twice that counts.
        """
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, 2 * between), now
        before, self._waited = self._waited, {}
        for worker, sign in signs.items():
            seen, waited = before.get(worker, (None, 0.0))
            self._waited[worker] = sign, waited + passed if seen == sign else 0.0
        return [
            worker
            for worker, (sign, waited) in self._waited.items()
            if waited > allowed(limit, sign.client, sign.together)
        ]
