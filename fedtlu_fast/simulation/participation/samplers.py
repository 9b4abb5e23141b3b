"""The server's draw of a cohort. To add one: a class with `draw`, and a line in `make`.

Every draw is without replacement and a pure function of seed, round and what the sampler is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

import numpy as np

from fedtlu_fast.data.population import Indices
from fedtlu_fast.randomness import generator
from fedtlu_fast.simulation.cohort import draw_clients, sample_cohort

Losses = Mapping[int, float]
"""Of clients that have trained, the last training loss; -inf for those whose change was not accepted."""


class Sampler(Protocol):
    """Draws clients."""

    def draw(self, round_index: int, count: int, available: Indices | None, losses: Losses) -> list[int]:
        """Different clients, in the order in which they are averaged.

        Args:
            round_index: of the round.
            count: how many; fewer are drawn when fewer can be.
            available: those that can take part, ascending; None: all.
            losses: what is known of clients from earlier rounds.
        """
        ...


@dataclass(frozen=True)
class UniformSampler:
    """Every client that can take part is drawn with the same chance. With all there, nothing is listed."""

    seed: int
    clients: int

    def draw(self, round_index: int, count: int, available: Indices | None, losses: Losses) -> list[int]:
        """See `Sampler.draw`."""
        if available is None:
            return sample_cohort(self.seed, round_index, self.clients, count)
        drawn = generator(self.seed, "cohort", round_index).choice(
            available, size=min(count, len(available)), replace=False
        )
        return [int(client) for client in drawn]


@dataclass(frozen=True)
class SizeSampler:
    """One client after another, each with chances in proportion to the samples that it holds.

    A round costs a pass over all sizes. The changes are weighted by the samples that clients hold whoever
    draws them, so that here clients that hold much count twice over (the paper's open question asks how
    the draw matters; it does not ask for another mean).

    Attributes:
        seed: of the run.
        sizes: [C], samples to train on; who holds none is never drawn.
    """

    seed: int
    sizes: Indices

    def draw(self, round_index: int, count: int, available: Indices | None, losses: Losses) -> list[int]:
        """See `Sampler.draw`."""
        weights = (self.sizes if available is None else self.sizes[available]).astype(np.float64)
        count = min(count, int(np.count_nonzero(weights)))
        if not count:
            return []
        places = generator(self.seed, "cohort", round_index).choice(
            len(weights), size=count, replace=False, p=weights / weights.sum()
        )
        return [int(client) for client in (places if available is None else available[places])]


@dataclass(frozen=True)
class LossSampler:
    """Power of choice (Cho et al., arXiv 2010.01243): of candidates, those with the largest loss.

    The candidates are drawn by size. A candidate's loss is its mean training loss in the last round it took
    part in, which costs nothing (the paper's variant rpow-d; its others have every candidate evaluate the
    global model in every round). Who has not taken part yet comes first, in the order of the draw. Ours:
    who failed, or whose change was refused, comes last until it is accepted again, so that a broken client
    is not drawn for ever; who dropped out keeps the loss it had.

    Attributes:
        by_size: draws the candidates.
        candidates: how many.
    """

    by_size: SizeSampler
    candidates: int

    def draw(self, round_index: int, count: int, available: Indices | None, losses: Losses) -> list[int]:
        """See `Sampler.draw`."""
        drawn = self.by_size.draw(round_index, self.candidates, available, losses)
        return sorted(drawn, key=lambda client: -losses.get(client, inf))[:count]


@dataclass(frozen=True)
class FixedSampler:
    """The same clients in every round; those of them that cannot take part are missing, not replaced.

    Attributes:
        seed: of the run.
        clients: how many there are.
        members: who; None: drawn once, uniformly.
    """

    seed: int
    clients: int
    members: Sequence[int] | None

    def draw(self, round_index: int, count: int, available: Indices | None, losses: Losses) -> list[int]:
        """See `Sampler.draw`."""
        members = self.members or draw_clients(self.seed, "fixed cohort", 0, self.clients, count)
        there = np.ones(len(members), np.bool_) if available is None else np.isin(members, available)
        return [client for client, can in zip(members, there, strict=True) if can]
