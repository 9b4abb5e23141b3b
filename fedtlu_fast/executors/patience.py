"""Signs of life: how a worker says what it is doing, and how long it may go without saying more."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

logger = logging.getLogger("fedtlu_fast")

SILENCE = 2.0
"""Seconds that a worker may take between two clients, however little time a client has: it may have to wait
for a busy machine."""

WORTH_A_WORD = 10.0
"""Seconds after which a stopped process is warned of."""


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


STOPPED = Sign(-1, 1, 0.0)
"""The sign of a process as long as it is stopped."""


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


class StoppedNotice:
    """Warns of processes that somebody has stopped (SIGSTOP): without a limit they are waited for."""

    def __init__(self, work: str) -> None:
        """Begins with no warning.

        Args:
            work: what waits with such a process, for the warning.
        """
        self._work, self._patience = work, Patience()
        self._told: set[int] = set()

    def look(self, stopped: Collection[int], between: float) -> None:
        """Warns, once each, of processes that have been stopped for `WORTH_A_WORD`.

        Args:
            stopped: numbers of the processes that are stopped now.
            between: see `Patience.late`.
        """
        self._told &= set(stopped)
        signs = dict.fromkeys(stopped, STOPPED)
        for pid in set(self._patience.late(signs, WORTH_A_WORD, between)) - self._told:
            self._told.add(pid)
            logger.warning(
                "process %d is stopped (SIGSTOP), and %s; it goes on by: kill -CONT %d", pid, self._work, pid
            )
