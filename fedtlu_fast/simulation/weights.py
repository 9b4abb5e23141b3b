"""How much one client of a cohort may count."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from fedtlu_fast.aggregation import largest_weight
from fedtlu_fast.clients.client_errors import left_to_the_round
from fedtlu_fast.data.population import Population


def weight_limit(population: Population, cohort: Sequence[int], share: float | None) -> float:
    """The largest weight of a client in the mean (`aggregation.share`); infinite without a share.

    It follows from what the cohort's clients hold, before any of them trains: so it is the same wherever
    they train, and a client that is refused later does not raise it.

    Args:
        population: who holds what.
        cohort: the clients that are to train.
        share: ``aggregation.max_share``.
    """
    if share is None:
        return inf
    held = []
    for client in cohort:
        with left_to_the_round():
            held.append(len(population.train(client)))
    return largest_weight(held, share)
