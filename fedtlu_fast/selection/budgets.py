"""Defines budgets: how many layers, or what share of the work, each client can train.

A budget is a pure function of the seed and the client's number, and stays the same for the whole run. It
takes some microseconds per client of a cohort, however many clients the federation has. arXiv 2408.15600 uses
equal budgets and budgets from a truncated half-normal distribution, and states no numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import field
from math import erf, fsum, nextafter, sqrt
from statistics import NormalDist
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part
from fedtlu_fast.randomness import Draws

Amounts = NDArray[Any]
"""Budgets of several clients: int64 for layers, float64 for shares."""
Amount = int | float
Unit = Literal["layers", "parameters", "flops"]
Clients = Sequence[int] | NDArray[np.int64]


class Budget(ABC):
    """Gives each client its budget. To define an own kind of budget, subclass it and write `of`.

    Attributes:
        unit: the unit of budgets. ``layers``: whole numbers of blocks. ``parameters``, ``flops``: shares, in
            (0, 1], of the parameters or FLOPs of training every layer.
    """

    unit: Unit = "layers"

    @abstractmethod
    def of(self, seed: int, clients: Clients) -> Amounts:
        """Returns the budgets of some clients.

        Args:
            seed: the seed of the run.
            clients: the numbers of C clients.

        Returns:
            [C], in the order of `clients`; int64 if the unit is layers, else float64.
        """

    def _check_amount(self, field: str, value: Amount) -> None:
        if self.unit == "layers":
            if not isinstance(value, int) or value < 1:
                fix = "Set unit=parameters or unit=flops for a share of the work." if 0 < value < 1 else ""
                raise InputError(field, value, "a whole number of layers, at least 1", fix)
        elif not 0 < value <= 1:
            fix = "Set unit=layers for a number of layers." if value > 1 else ""
            raise InputError(field, value, f"a share of the model's {self.unit}, in (0, 1]", fix)

    def _array(self, amounts: Any) -> Amounts:
        return np.asarray(amounts, dtype=np.int64 if self.unit == "layers" else np.float64)


@part
class Equal(Budget):
    """Gives every client the same budget.

    Attributes:
        amount: budget of every client.
        unit: layers (whole numbers) | parameters, flops (shares of what training every layer takes).
    """

    amount: Amount = 1
    unit: Unit = "layers"

    def __post_init__(self) -> None:
        self._check_amount("amount", self.amount)

    def of(self, seed: int, clients: Clients) -> Amounts:
        """See `Budget.of`."""
        return self._array([self.amount] * len(clients))


class RangeBudget(Budget):
    """Draws budgets between two ends; the base of `UniformBudget` and `HalfNormal`."""

    low: Amount
    high: Amount

    def __post_init__(self) -> None:
        self._check_amount("low", self.low)
        self._check_amount("high", self.high)
        if self.high < self.low:
            raise InputError("high", self.high, f"at least {self.low}, as in low")

    def of(self, seed: int, clients: Clients) -> Amounts:
        """See `Budget.of`."""
        layers = self.unit == "layers"
        # Whole budgets have high - low + 1 possible values; shares have a continuous range.
        above = self._above(_chances(seed, clients), self.high - self.low + (1 if layers else 0))
        found = self.low + (np.floor(above) if layers else above)
        return self._array(np.minimum(found, self.high))

    @abstractmethod
    def _above(self, chances: NDArray[np.float64], width: float) -> NDArray[np.float64]:
        """Maps uniform draws in [0, 1) to each client's budget above `low`, in [0, width)."""


@part
class UniformBudget(RangeBudget):
    """Draws budgets uniformly between two ends.

    Attributes:
        low: the smallest budget.
        high: the largest budget.
        unit: layers (whole numbers) | parameters, flops (shares of what training every layer takes).
    """

    low: Amount = 1
    high: Amount = 4
    unit: Unit = "layers"

    def _above(self, chances: NDArray[np.float64], width: float) -> NDArray[np.float64]:
        return width * chances


@part
class HalfNormal(RangeBudget):
    """Draws budgets ``low + |x|`` with a normal x, truncated at `high`; most are near `low`, few near `high`.

    A budget in layers is rounded down, so that it is ``low + j`` with the probability that |x| lies between j
    and j + 1, for j up to ``high - low``.

    Attributes:
        low: the smallest budget.
        high: the largest budget.
        scale: standard deviation of x; null: half the range (ours; the paper states none).
        unit: layers (whole numbers) | parameters, flops (shares of what training every layer takes).
    """

    low: Amount = 1
    high: Amount = 4
    scale: Annotated[float, Field(gt=0)] | None = None
    unit: Unit = "layers"

    def _above(self, chances: NDArray[np.float64], width: float) -> NDArray[np.float64]:
        """Inverts the distribution of |x|, given |x| < width."""
        if not width:
            return np.zeros(len(chances))
        scale = width / 2 if self.scale is None else self.scale
        within = erf(width / scale / sqrt(2))
        normal = NormalDist(sigma=scale)
        below = np.minimum(0.5 + 0.5 * within * chances, nextafter(1, 0))
        return np.array([normal.inv_cdf(chance) for chance in below.tolist()])


@part
class Listed(Budget):
    """Gives clients the budgets of a list in turn.

    Attributes:
        values: list of n budgets; client c has budget c modulo n of the list.
        unit: layers (whole numbers) | parameters, flops (shares of what training every layer takes).
    """

    values: tuple[Amount, ...] = ()
    unit: Unit = "layers"

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("values", [], "at least one budget with kind=list", "Write [1, 2, 4], say.")
        for index, value in enumerate(self.values):
            self._check_amount(f"values[{index}]", value)

    def of(self, seed: int, clients: Clients) -> Amounts:
        """See `Budget.of`."""
        return self._array(self.values)[np.asarray(clients, dtype=np.int64) % len(self.values)]


@part
class Device:
    """Describes a class of clients' devices.

    Attributes:
        share: the share of the clients that have such a device; the shares of all classes add up to 1.
        amount: the budget of each of these clients.
    """

    share: Annotated[float, Field(gt=0, le=1)]
    amount: Amount


@part
class DeviceClasses(Budget):
    """Draws the class of each client's device; the class gives the budget.

    The share of a class is its probability, so that shares hold on average but not exactly.

    Attributes:
        classes: classes of devices by name, such as {phone: {share: 0.7, amount: 1}, ...}.
        unit: layers (whole numbers) | parameters, flops (shares of what training every layer takes).
    """

    classes: dict[str, Device] = field(default_factory=dict)
    unit: Unit = "layers"

    def __post_init__(self) -> None:
        if not self.classes:
            expected = "at least one class of devices with kind=classes"
            raise InputError("classes", {}, expected, "Write {phone: {share: 1.0, amount: 2}}, say.")
        for name, device in self.classes.items():
            self._check_amount(f"classes.{name}.amount", device.amount)
        total = fsum(device.share for device in self.classes.values())
        if abs(total - 1) > 1e-9:
            raise InputError("classes", f"shares that sum to {total:g}", "shares that sum to 1")

    def of(self, seed: int, clients: Clients) -> Amounts:
        """See `Budget.of`."""
        ends = np.cumsum([device.share for device in self.classes.values()])
        amounts = self._array([device.amount for device in self.classes.values()])
        # The last class takes the rest, so that rounding of the sum makes no difference.
        return amounts[np.searchsorted(ends[:-1], _chances(seed, clients), side="right")]


def _chances(seed: int, clients: Clients) -> NDArray[np.float64]:
    """Draws a number in [0, 1) for each client, [C]."""
    draws = Draws()
    numbers = np.asarray(clients, dtype=np.int64)
    return np.array([draws.generator(seed, "budget", client=int(client)).random() for client in numbers])
