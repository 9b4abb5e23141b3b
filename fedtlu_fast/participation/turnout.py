"""Draws a round's participants: the drawn clients without those that do not answer or answer too late."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, cast

import numpy as np
from torch import Tensor

from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError, kind_of
from fedtlu_fast.own_draws import seeded_for
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.part_memory import Memory, recall, remember
from fedtlu_fast.participation.availability import Schedule
from fedtlu_fast.participation.samplers import Losses, Pool, Sampler
from fedtlu_fast.randomness import Draws, generator

PART, LOSS = "Participation", "loss"
"""The names under which a run's memory holds the clients' last training losses."""
NO_ANSWER, TOO_LATE = "no answer", "too late"


@dataclass(frozen=True)
class Participants:
    """The participants of one round.

    Attributes:
        drawn: the clients that the server drew, in the order of the draw.
        cohort: the clients that train and are averaged, in the same order; may be empty.
        dropped: the other drawn clients, each with the reason: ``no answer``, or ``too late`` if enough
            clients had answered before.
    """

    drawn: list[int]
    cohort: list[int]
    dropped: dict[int, str]


@dataclass(frozen=True)
class Turnout:
    """Draws the participants of every round, as a pure function of seed, round and known losses.

    The order of the answers is drawn uniformly. Unlike with real devices, it does not depend on the time that
    a client computes.

    Attributes:
        seed: the run's seed.
        clients: number of clients.
        size: size of a cohort.
        count: number of clients that are drawn for a cohort.
        dropout: probability that a drawn client does not answer.
        sampler: draws the clients.
        schedule: says which clients can be drawn; None: all clients.
        sizes: [C] int64, each client's number of training samples; None: the sampler does not need them.
    """

    seed: int
    clients: int
    size: int
    count: int
    dropout: float
    sampler: Sampler
    schedule: Schedule | None
    sizes: Indices | None

    @property
    def identity(self) -> dict[str, str]:
        """Values that a resumed run must share in addition to its settings, such as the digest of a trace."""
        return dict(self.schedule.identity) if self.schedule is not None else {}

    def draw(self, round_index: int, memory: Memory) -> Participants:
        """Draws the participants of a round.

        Args:
            round_index: the round, from 1.
            memory: the memory of all parts of the run, which holds the clients' last losses.

        Raises:
            InputError: a user's own sampler draws clients that it must not draw.
        """
        available = self.schedule.available(round_index) if self.schedule is not None else None
        pool = Pool(self.seed, round_index, self.clients, available, known_losses(memory), self.sizes)
        with (
            named_errors("participation.sampler", self.sampler),
            seeded_for(self.sampler, self.seed, "participation.sampler", round_index),
        ):
            found: Any = self.sampler.draw(pool, self.count)
            if isinstance(found, Iterator):
                found = list(found)
        most = self.sampler.most(self.clients, self.count)
        drawn = _checked(_numbers(type(self.sampler).__name__, found), pool, most)
        silent = self._silent(round_index, drawn)
        answering = [client for client in drawn if client not in silent]
        late = self._late(round_index, answering)
        reasons = dict.fromkeys(silent, NO_ANSWER) | dict.fromkeys(late, TOO_LATE)
        dropped = {client: reasons[client] for client in drawn if client in reasons}
        return Participants(drawn, [client for client in drawn if client not in dropped], dropped)

    def learnt(self, memory: Memory, outcomes: Iterable[tuple[int, float, bool]]) -> Memory:
        """Returns the memory of all parts after a round, with new losses if the sampler keeps losses.

        Args:
            memory: the memory before the round.
            outcomes: for each client that trained its number, its training loss, and whether its change was
                accepted.
        """
        if not self.sampler.keeps_losses:
            return memory
        latest = {client: {LOSS: loss if accepted else float("-inf")} for client, loss, accepted in outcomes}
        return remember(memory, PART, recall(memory, PART).with_clients(latest))

    def _silent(self, round_index: int, drawn: list[int]) -> set[int]:
        chance, draws = self.dropout, Draws()
        if not chance:
            return set()
        return {
            client
            for client in drawn
            if draws.generator(self.seed, "client dropout", round_index, client).random() < chance
        }

    def _late(self, round_index: int, answering: list[int]) -> set[int]:
        # Without over-selection nobody is late, also where the number of drawn clients varies.
        if self.count <= self.size or len(answering) <= self.size:
            return set()
        order = generator(self.seed, "arrival", round_index).permutation(len(answering))
        return {answering[place] for place in order[self.size :]}


def known_losses(memory: Memory) -> Losses:
    """Returns the last training losses of clients that the memory holds, by client."""
    return cast(Losses, recall(memory, PART).clients.get(LOSS, {}))


def _numbers(name: str, found: Any) -> list[int]:
    """Returns the draw of a sampler of this name as integers.

    Raises:
        InputError: it is no collection of integers.
    """
    drawn = found.tolist() if isinstance(found, np.ndarray | Tensor) else found
    right = isinstance(drawn, Collection) and not isinstance(drawn, str)
    if right and set(map(type, drawn)) <= {int}:  # our samplers' draws, of any size, need no closer look
        return list(drawn)
    if not right or any(isinstance(own, bool) or not isinstance(own, Integral) for own in drawn):
        expected = f"{name}.draw() to return a list of integers, the numbers of the drawn clients"
        raise InputError("participation.sampler", kind_of(found), expected)
    return [int(client) for client in drawn]


def _checked(found: list[int], pool: Pool, most: int) -> list[int]:
    """Checks the draw of a sampler, which may be the user's own, and returns it."""
    available = pool.available
    unknown = [client for client in found if not 0 <= client < pool.clients]
    if available is not None and not unknown:
        there = np.isin(found, available)
        unknown = [client for client, can in zip(found, there, strict=True) if not can]
    if unknown or len(set(found)) < len(found) or len(found) > most:
        expected = f"a sampler that draws at most {most} different clients of those that can take part"
        raise InputError("participation.sampler", found, expected)
    return found
