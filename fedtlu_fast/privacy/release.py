"""What a round publishes about the clients, as accountants see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Release:
    """One noisy sum over a random cohort, in which every client counts by at most the clipping norm.

    Two federations are neighbours if they differ in one client. With Poisson sampling, one of them has this
    client more: the sum differs by at most the clipping norm. With cohorts of a fixed size, one client is
    replaced by another, because the number of clients has to be the same: the sum differs by at most twice
    the clipping norm.

    Attributes:
        noise_multiplier: standard deviation of the noise in the sum, divided by the clipping norm.
        clients: number of clients in the federation.
        cohort: number of clients in a round; with Poisson sampling the expected number.
        poisson: whether every client takes part by a draw of its own, with probability cohort / clients. If
            not, a cohort is a uniform draw of this many clients without replacement.
    """

    noise_multiplier: float
    clients: int
    cohort: int
    poisson: bool
