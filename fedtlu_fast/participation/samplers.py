"""The samplers, by which the server draws clients. To write your own, subclass `Sampler`.

Every draw is without replacement and a pure function of the `Pool` and the number of clients to draw.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.participation.cohort import draw_clients, sample_cohort
from fedtlu_fast.parts import part
from fedtlu_fast.randomness import generator

Losses = Mapping[int, float]
"""The last training loss of each client that has trained; -inf for a client whose change was not accepted."""


@dataclass(frozen=True)
class Pool:
    """The clients among which a sampler draws for one round.

    Attributes:
        seed: the run's seed.
        round: the number of the round, from 1.
        clients: number of clients; they are numbered from 0.
        available: the numbers of the clients that can take part, ascending; None: all clients.
        losses: the clients' last training losses; empty for a sampler without `keeps_losses`.
        sizes: [C] int64, each client's number of training samples; None for a sampler without `needs_sizes`.
    """

    seed: int
    round: int
    clients: int
    available: Indices | None = None
    losses: Losses = field(default_factory=dict)
    sizes: Indices | None = None


class Sampler(ABC):
    """Draws clients.

    Attributes:
        needs_sizes: whether its draw depends on the clients' numbers of samples. They are then read once,
            before the first round.
        keeps_losses: whether its draw depends on the clients' last losses. They are then part of every
            checkpoint.
    """

    needs_sizes: ClassVar[bool] = False
    keeps_losses: ClassVar[bool] = False

    def check(self, clients: int, count: int) -> None:  # noqa: B027 (most samplers draw any number)
        """Checks before the first round that the parameters fit the federation.

        Args:
            clients: number of clients.
            count: number of clients that are to be drawn in a round.

        Raises:
            InputError: they do not fit. The error's field is the name of the parameter.
        """

    def most(self, clients: int, count: int) -> int:
        """Returns the largest number of clients that a draw may return, by default the number to draw."""
        return count

    @abstractmethod
    def draw(self, pool: Pool, count: int) -> list[int]:
        """Draws different clients of the pool, in the order in which they are averaged.

        Args:
            pool: the clients among which to draw.
            count: number of clients to draw; fewer are drawn if fewer can take part.
        """


@part
class Uniform(Sampler):
    """Draws every available client with the same probability.

    If all clients are available, time and memory of a draw do not depend on their number.
    """

    @override
    def draw(self, pool: Pool, count: int) -> list[int]:
        if pool.available is None:
            return sample_cohort(pool.seed, pool.round, pool.clients, count)
        drawn = generator(pool.seed, "cohort", pool.round).choice(
            pool.available, size=min(count, len(pool.available)), replace=False
        )
        return [int(client) for client in drawn]


@part
class Poisson(Sampler):
    """Draws every client with the same probability, independently of all others.

    The cohort of a round then has any size, also 0, and the setting `cohort` is its mean. Differential
    privacy is cheapest under this sampling, because whether a client takes part says nothing about others.
    A client that is not available does not take part; the others' probability stays.
    """

    @override
    def most(self, clients: int, count: int) -> int:
        return clients

    @override
    def draw(self, pool: Pool, count: int) -> list[int]:
        draws = generator(pool.seed, "cohort", pool.round)
        # The number first, so that time and memory do not depend on the number of clients.
        size = int(draws.binomial(pool.clients, min(1.0, count / pool.clients)))
        drawn = draw_clients(pool.seed, "poisson cohort", pool.round, pool.clients, size)
        there = None if pool.available is None else set(pool.available.tolist())
        return drawn if there is None else [client for client in drawn if client in there]


@part
class BySize(Sampler):
    """Draws one client after another with probabilities in proportion to their numbers of samples.

    A client without samples is never drawn. A round costs one pass over all sizes. The mean of the changes is
    weighted by samples for every sampler, so that here a large client counts twice: in the draw and in the
    mean (FedTLU's paper asks how the draw matters, and does not ask for another mean).
    """

    needs_sizes = True

    @override
    def draw(self, pool: Pool, count: int) -> list[int]:
        available, sizes = pool.available, pool.sizes
        if sizes is None:
            raise InputError("sizes", None, "the number of samples that each client holds")
        weights = (sizes if available is None else sizes[available]).astype(np.float64)
        count = min(count, int(np.count_nonzero(weights)))
        if not count:
            return []
        places = generator(pool.seed, "cohort", pool.round).choice(
            len(weights), size=count, replace=False, p=weights / weights.sum()
        )
        return [int(client) for client in (places if available is None else available[places])]


@part
class ByLoss(Sampler):
    """Power of choice (Cho et al., arXiv 2010.01243): takes the candidates with the largest loss.

    The candidates are drawn by size. A candidate's loss is its mean training loss in the last round in which
    it took part, which costs nothing. This is the paper's variant rpow-d; in the other variants every
    candidate evaluates the global model in every round. Clients that have not taken part yet come first, in
    the order of the draw. Ours: a client that failed, or whose change was refused, comes last until it is
    accepted again, so that a broken client is not drawn in every round; a client that dropped out keeps its
    loss.

    Attributes:
        candidates: number of clients drawn by size, among which the cohort is chosen; null: twice the number
            drawn.
    """

    candidates: Annotated[int, Field(ge=1)] | None = None
    needs_sizes = True
    keeps_losses = True

    @override
    def check(self, clients: int, count: int) -> None:
        if self.candidates is not None and not count <= self.candidates <= clients:
            expected = f"{count}, as many as are drawn, to {clients}, the clients there are"
            raise InputError("candidates", self.candidates, expected)

    @override
    def draw(self, pool: Pool, count: int) -> list[int]:
        drawn = BySize().draw(pool, self.candidates or min(2 * count, pool.clients))
        return sorted(drawn, key=lambda client: -pool.losses.get(client, inf))[:count]


@part
class Fixed(Sampler):
    """Takes the same clients in every round; members that cannot take part are not replaced.

    Attributes:
        members: the clients' numbers; null: they are drawn once, uniformly.
    """

    members: tuple[Annotated[int, Field(ge=0)], ...] | None = None

    def __post_init__(self) -> None:
        if len(set(self.members or ())) < len(self.members or ()):
            raise InputError("members", self.members, "each client once")

    @override
    def check(self, clients: int, count: int) -> None:
        members = self.members
        if members is not None and (len(members) != count or max(members) >= clients):
            expected = f"{count} clients, as many as are drawn, numbered from 0 to {clients - 1}"
            raise InputError("members", members, expected)

    @override
    def draw(self, pool: Pool, count: int) -> list[int]:
        members = self.members or draw_clients(pool.seed, "fixed cohort", 0, pool.clients, count)
        available = pool.available
        there = np.ones(len(members), np.bool_) if available is None else np.isin(members, available)
        return [client for client, can in zip(members, there, strict=True) if can]
