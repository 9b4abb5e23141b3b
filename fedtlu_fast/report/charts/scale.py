"""Where numbers stand on an axis, and which ticks the axis has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import floor, isfinite, log10

from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Scale:
    """A linear axis from `low` to `high`.

    Attributes:
        low: the number at its beginning.
        high: the number at its end, larger than `low`.
        whole: whether only whole numbers are ticks, as of rounds.
    """

    low: float
    high: float
    whole: bool = False

    @classmethod
    def over(cls, values: Iterable[float], *, below: float = 0.05, above: float = 0.08) -> Scale:
        """The axis that shows these numbers, with some room; from 0 to 1 if there is no finite number.

        Args:
            values: the numbers; what is not finite is left out.
            below: room below the smallest number, as a share of their range.
            above: room above the largest number.
        """
        found = [value for value in values if isfinite(value)]
        if not found:
            return cls(0.0, 1.0)
        low, high = min(found), max(found)
        span = (high - low) or abs(high) or 1.0
        return cls(low - below * span, high + above * span)

    def share(self, value: float) -> float:
        """Where a number stands: 0 at the beginning of the axis, 1 at its end."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers on the axis, `most` or fewer."""
        steps = [1, 2, 5, 10] if self.whole else [1, 2, 2.5, 5, 10]
        found = MaxNLocator(most, steps=steps, integer=self.whole).tick_values(self.low, self.high)
        if self.whole:
            found = [tick for tick in found if tick == round(tick)] or [round((self.low + self.high) / 2)]
        slack = 1e-9 * (self.high - self.low)
        return [float(tick) for tick in found if self.low - slack <= tick <= self.high + slack]

    def labels(self, most: int = 6) -> list[tuple[float, str]]:
        """Each tick with its label; all labels have the same number of decimals."""
        ticks = self.ticks(most)
        step = min((after - tick for tick, after in pairwise(ticks)), default=1.0)
        largest = max(map(abs, ticks), default=0.0)
        if largest >= 1e6 or 0 < largest < 1e-4:
            return [(tick, f"{tick:.3g}") for tick in ticks]
        decimals = max(0, -floor(log10(step) + 1e-9)) if step < 1 else 0
        if round(step, decimals) != step and abs(step - round(step, decimals)) > 1e-9 * step:
            decimals += 1  # steps of 0.25 and 2.5
        return [(tick, f"{tick + 0.0:,.{decimals}f}") for tick in ticks]


def thinned(count: int, most: int) -> list[int]:
    """Places from 0 to ``count - 1``, evenly spaced, `most` or fewer; the first and the last are among them.

    Args:
        count: how many there are.
        most: how many may be left, two or more.
    """
    if count <= most:
        return list(range(count))
    return sorted({round(place * (count - 1) / (most - 1)) for place in range(most)})
