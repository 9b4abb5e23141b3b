"""Lists the operations that `fedtlu profile` measures, and the memory that each needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fedtlu_fast.profiling.cases import (
    Case,
    Subject,
    accumulate_case,
    aggregate_case,
    apply_case,
    stats_case,
)
from fedtlu_fast.profiling.robust_cases import distances_case, krum_case, median_case, trimmed_case


@dataclass(frozen=True)
class Op:
    """Describes an operation to profile: how to make its case, and the memory that the case needs.

    Attributes:
        case: makes the case.
        narrow: number of vectors in the dtype of the change, besides the K clients.
        wide: number of vectors of 4 bytes per element; the oracle's count twice.
        takes_clients: whether it is measured for several numbers of clients, K.
        widens: whether the clients are float32, whatever the dtype of the change.
        copies: how often the case holds the clients.
    """

    case: Callable[[Subject], Case]
    narrow: int = 0
    wide: int = 0
    takes_clients: bool = False
    widens: bool = False
    copies: int = 1

    def bytes(self, size: int, itemsize: int, clients: int) -> int:
        """Returns the bytes that a case takes beside the change [P], for `size` = P."""
        held = self.narrow + (clients * self.copies if self.takes_clients else 0)
        return size * (held * (4 if self.widens else itemsize) + self.wide * 4)


OPS = {
    "layer_stats": Op(stats_case),
    "layer_stats (list)": Op(partial(stats_case, separate=True), narrow=1),
    "accumulate_": Op(accumulate_case, narrow=1, wide=6),
    "accumulate_+stats": Op(partial(accumulate_case, stats=True), narrow=1, wide=6),
    "aggregate": Op(aggregate_case, wide=6, takes_clients=True),
    "aggregate+clients": Op(partial(aggregate_case, client_stats=True), wide=6, takes_clients=True),
    "aggregate+norms": Op(partial(aggregate_case, client_stats="norms"), wide=6, takes_clients=True),
    "masked_apply_": Op(apply_case, wide=6),
    "median": Op(median_case, wide=6, takes_clients=True, widens=True),
    "trimmed mean": Op(trimmed_case, wide=6, takes_clients=True, widens=True),
    "distances": Op(distances_case, wide=6, takes_clients=True, widens=True),
    "krum": Op(krum_case, wide=6, takes_clients=True, widens=True, copies=2),
}
