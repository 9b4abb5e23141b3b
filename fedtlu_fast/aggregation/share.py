"""A limit on the weight of one client in the mean (``aggregation.max_share``)."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Annotated

from pydantic import Field

from fedtlu_fast.errors import InputError

MaxShare = Annotated[float | None, Field(gt=0, le=1)]


def check_share(share: float | None, cohort: int) -> None:
    """Checks that a largest share is at least 1 / cohort, the share of each client with equal weights.

    Raises:
        InputError: it is less.
    """
    if share is not None and share < 1 / cohort:
        expected = f"at least 1 / {cohort}, the share of each when {cohort} count alike"
        raise InputError("max_share", share, expected, "Or use a larger cohort.")


def largest_weight(samples: Iterable[int], share: float) -> float:
    """Returns the limit of a round's weights with which no client has more than `share` of their sum (ours).

    A client's weight is its number of samples, or the limit if that is smaller. Clients without samples do
    not count. If there are too few other clients (``1 / share`` or fewer), the limit is the smallest client's
    number of samples, so that all have equal weights.

    Args:
        samples: the number of samples of each client of the cohort.
        share: the largest share, in (0, 1].
    """
    held = sorted((own for own in samples if own), reverse=True)
    # Exact decimal arithmetic: 10 clients with a share of 0.1 each are the whole.
    limit = Fraction(str(share))
    if limit * len(held) <= 1:
        return float(held[-1]) if held else 0.0
    rest = sum(held)
    for cut, own in enumerate(held):
        # If the `cut` largest clients have the weight c, then c = limit * (cut * c + rest).
        most = limit * rest / (1 - limit * cut)
        if own <= most:
            return float(most)
        rest -= own
    raise AssertionError("more clients than 1 / share cannot all be above it")
