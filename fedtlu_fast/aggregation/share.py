"""A limit on how much one client counts in the mean (``aggregation.max_share``)."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Annotated

from pydantic import Field

from fedtlu_fast.errors import InputError

MaxShare = Annotated[float | None, Field(gt=0, le=1)]


def check_share(share: float | None, cohort: int) -> None:
    """Refuses a largest share that clients who count alike would exceed.

    Raises:
        InputError: it is less than 1 / cohort.
    """
    if share is not None and share < 1 / cohort:
        expected = f"at least 1 / {cohort}, the share of each when {cohort} count alike"
        raise InputError("max_share", share, expected, "Or use a larger cohort.")


def largest_weight(samples: Iterable[int], share: float) -> float:
    """The weight that no client of a round may exceed, so that none has more than `share` of the sum.

    Every weight is a client's number of samples, or this where it holds more. Clients that hold nothing do
    not count. When fewer than ``1 / share`` clients are left, nobody can stay below it; then all get the
    weight of the smallest one.

    Args:
        samples: that each client of the cohort holds.
        share: in (0, 1].
    """
    held = sorted((own for own in samples if own), reverse=True)
    # The share as it is written, and exact: 10 clients of a share of 0.1 are the whole.
    limit = Fraction(str(share))
    if limit * len(held) <= 1:
        return float(held[-1]) if held else 0.0
    rest = sum(held)
    for cut, own in enumerate(held):
        # With the `cut` largest at the limit c, c = limit * (cut * c + rest).
        most = limit * rest / (1 - limit * cut)
        if own <= most:
            return float(most)
        rest -= own
    raise AssertionError("more clients than 1 / share cannot all be above it")
