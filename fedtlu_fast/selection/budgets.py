"""How many layers, or what share of the work, each client can train.

Budgets are pure functions of the seed and the client's number. A budget is the client's for the whole run,
whoever else is asked about; a cohort costs some microseconds a client, however many clients the federation
has. arXiv 2408.15600 has budgets that are equal or by a truncated half-normal; it states no numbers.
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
"""int64 for layers, float64 for shares."""
Amount = int | float
Unit = Literal["layers", "parameters", "flops"]
Clients = Sequence[int] | NDArray[np.int64]


class Budget(ABC):
    """Gives each client what it can train. To write your own, subclass it.

    Attributes:
        unit: ``layers``: budgets are whole numbers of blocks. ``parameters``, ``flops``: they are shares, in
            (0, 1], of those of training every layer.
    """

    unit: Unit = "layers"

    @abstractmethod
    def of(self, seed: int, clients: Clients) -> Amounts:
        """The budgets of some clients, in their order.

        Args:
            seed: of the run.
            clients: their numbers.

        Returns:
            int64 for layers, else float64.
        """

    def _check_amount(self, field: str, value: Amount) -> None:
        if self.unit == "layers":
            if not isinstance(value, int) or value < 1:
                fix = "For a share of the work: unit=parameters or unit=flops." if 0 < value < 1 else ""
                raise InputError(field, value, "a whole number of layers, at least 1", fix)
        elif not 0 < value <= 1:
            fix = "For a number of layers: unit=layers." if value > 1 else ""
            raise InputError(field, value, f"a share of the model's {self.unit}, in (0, 1]", fix)

    def _array(self, amounts: Any) -> Amounts:
        return np.asarray(amounts, dtype=np.int64 if self.unit == "layers" else np.float64)


@part
class Equal(Budget):
    """The same budget for every client.

    Attributes:
        amount: everybody's budget.
        unit: layers (whole numbers) | parameters, flops (shares of those of training every layer).
    """

    amount: Amount = 1
    unit: Unit = "layers"

    def __post_init__(self) -> None:
        self._check_amount("amount", self.amount)

    def of(self, seed: int, clients: Clients) -> Amounts:
        """See `Budget.of`."""
        return self._array([self.amount] * len(clients))


class RangeBudget(Budget):
    """Base of budgets that are drawn between two ends."""

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
        # Whole budgets have as many values, shares a range.
        above = self._above(_chances(seed, clients), self.high - self.low + (1 if layers else 0))
        found = self.low + (np.floor(above) if layers else above)
        return self._array(np.minimum(found, self.high))

    @abstractmethod
    def _above(self, chances: NDArray[np.float64], width: float) -> NDArray[np.float64]:
        """What each client has above low, in [0, width); of uniform chances in [0, 1)."""


@part
class UniformBudget(RangeBudget):
    """A budget between two ends, each as likely.

    Attributes:
        low: the smallest budget.
        high: the largest budget.
        unit: layers (whole numbers) | parameters, flops (shares of those of training every layer).
    """

    low: Amount = 1
    high: Amount = 4
    unit: Unit = "layers"

    def _above(self, chances: NDArray[np.float64], width: float) -> NDArray[np.float64]:
        return width * chances


@part
class HalfNormal(RangeBudget):
    """low + |x| with a normal x, truncated at high: most budgets are near low, few near high.

    Of layers it is the whole part, so that a budget of low + j has the chance of |x| between j and j + 1,
    for j up to high - low.

    Attributes:
        low: the smallest budget.
        high: the largest budget.
        scale: standard deviation of the normal; null: half the range (ours; the paper states none).
        unit: layers (whole numbers) | parameters, flops (shares of those of training every layer).
    """

    low: Amount = 1
    high: Amount = 4
    scale: Annotated[float, Field(gt=0)] | None = None
    unit: Unit = "layers"

    def _above(self, chances: NDArray[np.float64], width: float) -> NDArray[np.float64]:
        """|x| of a normal x, given |x| < width: the inverse of its distribution."""
        if not width:
            return np.zeros(len(chances))
        scale = width / 2 if self.scale is None else self.scale
        within = erf(width / scale / sqrt(2))
        normal = NormalDist(sigma=scale)
        below = np.minimum(0.5 + 0.5 * within * chances, nextafter(1, 0))
        return np.array([normal.inv_cdf(chance) for chance in below.tolist()])


@part
class Listed(Budget):
    """Budgets in turn, by the client's number.

    Attributes:
        values: client c has number c modulo their number.
        unit: layers (whole numbers) | parameters, flops (shares of those of training every layer).
    """

    values: tuple[Amount, ...] = ()
    unit: Unit = "layers"

    def __post_init__(self) -> None:
        if not self.values:
            raise InputError("values", [], "at least one budget with kind=list", "Such as [1, 2, 4].")
        for index, value in enumerate(self.values):
            self._check_amount(f"values[{index}]", value)

    def of(self, seed: int, clients: Clients) -> Amounts:
        """See `Budget.of`."""
        return self._array(self.values)[np.asarray(clients, dtype=np.int64) % len(self.values)]


@part
class Device:
    """A class of clients' devices.

    Attributes:
        share: of the clients; the shares of all classes add up to 1.
        amount: the budget of each of them.
    """

    share: Annotated[float, Field(gt=0, le=1)]
    amount: Amount


@part
class DeviceClasses(Budget):
    """Classes of devices: each client is of a class by a chance of its share.

    So the shares are met on average, not to the client.

    Attributes:
        classes: of devices by name, such as {phone: {share: 0.7, amount: 1}, ...}.
        unit: layers (whole numbers) | parameters, flops (shares of those of training every layer).
    """

    classes: dict[str, Device] = field(default_factory=dict)
    unit: Unit = "layers"

    def __post_init__(self) -> None:
        if not self.classes:
            expected = "at least one class of devices with kind=classes"
            raise InputError("classes", {}, expected, "Such as {phone: {share: 1.0, amount: 2}}.")
        for name, device in self.classes.items():
            self._check_amount(f"classes.{name}.amount", device.amount)
        total = fsum(device.share for device in self.classes.values())
        if abs(total - 1) > 1e-9:
            raise InputError("classes", f"shares of {total:g} in all", "shares that add up to 1")

    def of(self, seed: int, clients: Clients) -> Amounts:
        """See `Budget.of`."""
        ends = np.cumsum([device.share for device in self.classes.values()])
        amounts = self._array([device.amount for device in self.classes.values()])
        # The last class ends at 1, whatever rounding made of the sum.
        return amounts[np.searchsorted(ends[:-1], _chances(seed, clients), side="right")]


def _chances(seed: int, clients: Clients) -> NDArray[np.float64]:
    """A number in [0, 1) for each client."""
    draws = Draws()
    numbers = np.asarray(clients, dtype=np.int64)
    return np.array([draws.generator(seed, "budget", client=int(client)).random() for client in numbers])
