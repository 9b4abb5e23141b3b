"""Krum and Multi-Krum: only clients that are close to most others count.

Source: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS
2017 (preprint: arXiv 1703.02757). The clients' stack takes 4 K P bytes, in memory or in a file (`Stack`), and
the distances take some 64 K^2 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import Annotated

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.aggregation.passes import weighted_sum
from fedtlu_fast.aggregation.rule import Aggregated, Arrived, StackedRule
from fedtlu_fast.aggregation.stack import Spill, Stack
from fedtlu_fast.errors import InputError
from fedtlu_fast.ops import stacks
from fedtlu_fast.parts import part


def _some_clients(value: object) -> object:
    # An integer is a number of clients and a float is a share, so 1 and 1.0 differ; text is refused.
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not whole and not (isinstance(value, float) and 0 <= value < 0.5):
        raise ValueError("0 clients or more, or a share in [0, 0.5)")
    return value


Byzantine = Annotated[int | float, BeforeValidator(_some_clients)]


@part
class Krum(StackedRule):
    """The change of the client with the lowest score.

    The score of a client is the sum of its squared distances to its n - f - 2 nearest of the n clients that
    arrived. Ties are broken by the clients' places in the cohort (in the paper by their identifiers). Every
    client counts once, whatever its number of samples.

    The paper requires 2 f + 2 < n, which is checked for the size of the cohort. In a round in which too many
    clients failed or were refused, the rule keeps no client and changes nothing (ours), because f malicious
    clients may be among those that arrived, and the missing clients may all have been honest.

    Attributes:
        byzantine: f, the number of clients of a cohort that may be malicious, such as 2, or their share, such
            as 0.2, which is rounded up to a number; 2 f + 2 < cohort.
        spill: directory for the cohort's vectors; null: in memory.
    """

    byzantine: Byzantine = 0.2
    spill: Spill = None
    chooses = True

    def tolerated(self, cohort: int) -> int:
        """Returns f for a cohort of this size; a share is rounded up."""
        if isinstance(self.byzantine, int):
            return self.byzantine
        # Exact decimal arithmetic: 0.1 of 30 is 3, but the float product is above 3.
        return ceil(Fraction(str(self.byzantine)) * cohort)

    @override
    def check(self, cohort: int) -> None:
        tolerated = self.tolerated(cohort)
        if cohort <= 2 * tolerated + 2:
            expected = f"f with 2 f + 2 < {cohort}, the cohort; this is f = {tolerated}"
            raise InputError("byzantine", self.byzantine, expected, "Or use a larger cohort.")

    def size(self, arrived: int, tolerated: int) -> int:
        """Returns the number of clients that are kept, of those that arrived."""
        return 1

    def finish(self, state: Arrived) -> Aggregated:
        """Returns the mean change of the clients that are kept; zeros if there are none."""
        arrived, tolerated = len(state.stack), self.tolerated(state.start.cohort)
        kept: list[int] = []
        if arrived > 2 * tolerated + 2:
            kept = lowest(state.stack, tolerated, self.size(arrived, tolerated), state.start.backend)
        shares = np.zeros(arrived)
        shares[kept] = 1 / max(1, len(kept))
        return Aggregated(weighted_sum(state.stack, shares, state.start.backend), kept)


@part
class MultiKrum(Krum):
    """The mean change of the clients with the lowest scores; see `Krum`.

    Attributes:
        byzantine: f, the number of clients of a cohort that may be malicious, such as 2, or their share, such
            as 0.2, which is rounded up to a number; 2 f + 2 < cohort.
        kept: number of clients that are kept; null: f fewer than arrived, as in the paper's experiments.
        spill: directory for the cohort's vectors; null: in memory.
    """

    kept: Annotated[int | None, Field(ge=1)] = None

    @override
    def check(self, cohort: int) -> None:
        super().check(cohort)
        if self.kept is not None and self.kept > cohort:
            raise InputError("kept", self.kept, f"at most {cohort}, the cohort")

    @override
    def size(self, arrived: int, tolerated: int) -> int:
        return min(arrived, self.kept or arrived - tolerated)


def lowest(stack: Stack, tolerated: int, size: int, backend: str = "auto") -> list[int]:
    """Returns the places of the `size` clients with the lowest scores, in ascending order.

    The scores are those of the float64 distances, always; but these are computed only for clients that bounds
    of the distances leave undecided, which are cheaper (ours). A sum of sorted values grows with each of
    them, rounded or not, so that the scores of the bounds are bounds of the scores.
    """
    lower = torch.zeros(len(stack), len(stack), dtype=torch.float64)
    upper = torch.zeros_like(lower)
    for _, rows in stack.blocks():
        low, high = stacks.squared_distance_bounds(rows, backend)
        lower += low
        upper += high
    kept, undecided = decided(krum_scores(lower, tolerated), krum_scores(upper, tolerated), size)
    if undecided:
        # In a whole matrix, whose rows are summed in the same order as ever.
        distances = torch.zeros_like(lower)
        distances[undecided] = squared_distances(stack, backend, undecided)
        order = krum_scores(distances, tolerated)[undecided].sort(stable=True).indices
        kept += [undecided[at] for at in order[: size - len(kept)].tolist()]
    return sorted(kept)


def decided(lower: Tensor, upper: Tensor, size: int) -> tuple[list[int], list[int]]:
    """Returns who is among the `size` lowest scores whatever the scores are, and who may be, in order.

    Args:
        lower: [K] float64, what each score is at least; NaN, which comes last, if the score is NaN.
        upper: [K] float64, what it is at most.
        size: from 1 to K.
    """
    lower, upper = lower.nan_to_num(torch.inf, torch.inf), upper.nan_to_num(torch.inf, torch.inf)
    # A client's own bounds are among those that are not above it.
    may_come_first = torch.searchsorted(lower.sort().values, upper, right=True) - 1
    come_first = torch.searchsorted(upper.sort().values, lower)
    kept = may_come_first < size
    open_ = ~kept & (come_first < size)
    return kept.nonzero().flatten().tolist(), open_.nonzero().flatten().tolist()


def squared_distances(stack: Stack, backend: str = "auto", chosen: Sequence[int] | None = None) -> Tensor:
    """Computes ``||w_i - w_j||^2`` of the chosen clients and all, as [C, K] float64 on the CPU.

    They are sums of direct differences in float64 (see `reference.squared_distances`). The bits depend on
    neither the number of threads nor the choice; None chooses all.
    """
    distances = torch.zeros(len(stack) if chosen is None else len(chosen), len(stack), dtype=torch.float64)
    for _, rows in stack.blocks():
        distances += stacks.squared_distances(rows, backend, chosen=chosen)
    return distances


def krum_scores(distances: Tensor, tolerated: int) -> Tensor:
    """Returns [K] float64, every client's sum of squared distances to its K - f - 2 nearest other clients.

    Args:
        distances: [K, K] float64, the squared distances.
        tolerated: f; K - f - 2 is at least 1.
    """
    clients = len(distances)
    others = distances + torch.diag(torch.full((clients,), torch.inf, dtype=torch.float64))
    return others.sort(dim=1).values[:, : clients - tolerated - 2].sum(dim=1)
