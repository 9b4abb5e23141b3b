"""Settings: how many layers, or what share of the work, each client can train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from fedtlu_fast.config.parts_section import number_of
from fedtlu_fast.config.section import Section, check_unused
from fedtlu_fast.errors import InputError

Amount = int | float


class DeviceConfig(Section):
    """A class of clients' devices."""

    share: float = Field(gt=0, le=1, description="of the clients; the shares of all classes add up to 1")
    amount: Amount = Field(description="budget of each of them")


BUDGET_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "equal": ("amount",),
    "uniform": ("low", "high"),
    "half_normal": ("low", "high", "scale"),
    "list": ("values",),
    "classes": ("classes",),
}
"""Which settings a kind goes by, besides `unit`; the others have to keep their defaults."""


class BudgetConfig(Section):
    """Budgets of the clients (arXiv 2408.15600: equal, or by a truncated half-normal; it states no numbers).

    See `selection.budgets` for what is drawn.
    """

    kind: Literal["equal", "uniform", "half_normal", "list", "classes"] = Field(
        "equal",
        description="equal | uniform (low to high) | half_normal (most near low, few near high) | list (in "
        "turn) | classes (devices); short: 2, 1..4, half_normal:1..4, [1, 2, 4]",
    )
    unit: Literal["layers", "parameters", "flops"] = Field(
        "layers",
        description="layers (whole numbers) | parameters, flops (shares of those of training every layer)",
    )
    amount: Amount = Field(1, description="equal: everybody's budget")
    low: Amount = Field(1, description="uniform, half_normal: the smallest budget")
    high: Amount = Field(4, description="uniform, half_normal: the largest budget")
    scale: float | None = Field(
        None, gt=0, description="half_normal: standard deviation of the normal; null: half the range"
    )
    values: tuple[Amount, ...] = Field((), description="list: client c has number c modulo their number")
    classes: dict[str, DeviceConfig] = Field(
        {}, description="classes: of devices by name, such as {phone: {share: 0.7, amount: 1}, ...}"
    )

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        check_unused(self, {"kind", "unit", *BUDGET_ARGUMENTS[self.kind]}, f"kind={self.kind}")
        {
            "equal": self._check_equal,
            "uniform": self._check_range,
            "half_normal": self._check_range,
            "list": self._check_values,
            "classes": self._check_classes,
        }[self.kind]()
        return self

    @property
    def used(self) -> dict[str, Any]:
        """The settings that this kind goes by, ready for JSON."""
        return self.model_dump(mode="json", include={"kind", "unit", *BUDGET_ARGUMENTS[self.kind]})

    def _check_equal(self) -> None:
        self._check_amount("amount", self.amount)

    def _check_range(self) -> None:
        self._check_amount("low", self.low)
        self._check_amount("high", self.high)
        if self.high < self.low:
            raise InputError("high", self.high, f"at least {self.low}, as in low")

    def _check_values(self) -> None:
        if not self.values:
            raise InputError("values", [], "at least one budget with kind=list", "Such as [1, 2, 4].")
        for index, value in enumerate(self.values):
            self._check_amount(f"values[{index}]", value)

    def _check_classes(self) -> None:
        if not self.classes:
            expected = "at least one class of devices with kind=classes"
            raise InputError("classes", {}, expected, "Such as {phone: {share: 1.0, amount: 2}}.")
        for name, device in self.classes.items():
            self._check_amount(f"classes.{name}.amount", device.amount)
        total = fsum(device.share for device in self.classes.values())
        if abs(total - 1) > 1e-9:
            raise InputError("classes", f"shares of {total:g} in all", "shares that add up to 1")

    def _check_amount(self, field: str, value: Amount) -> None:
        if self.unit == "layers":
            if not isinstance(value, int) or value < 1:
                fix = "For a share of the work: unit=parameters or unit=flops." if 0 < value < 1 else ""
                raise InputError(field, value, "a whole number of layers, at least 1", fix)
        elif not 0 < value <= 1:
            fix = "For a number of layers: unit=layers." if value > 1 else ""
            raise InputError(field, value, f"a share of the model's {self.unit}, in (0, 1]", fix)


def budget_shorthand(value: Any) -> Any:
    """Short forms as a mapping.

    ``2`` is equal, ``1..4`` uniform, ``half_normal:1..4`` (or ``uniform:1..4``) by that name, ``[1, 2, 4]`` a
    list; a mapping from names to mappings is one of classes. Anything else is left for validation.
    """
    if isinstance(value, Mapping):
        classes = bool(value) and all(isinstance(item, Mapping) for item in value.values())
        return {"kind": "classes", "classes": value} if classes and "classes" not in value else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"kind": "equal", "amount": value}
    if isinstance(value, str):
        return _read(value)
    if isinstance(value, Sequence):
        return {"kind": "list", "values": value}
    return value


def _read(text: str) -> dict[str, Any]:
    kind, colon, numbers = text.rpartition(":")
    low, dots, high = numbers.partition("..")
    if dots:
        return {"kind": kind if colon else "uniform", "low": number_of(low), "high": number_of(high)}
    if colon or number_of(text) is text:
        expected = "a number such as 2, a range such as 1..4 or half_normal:1..4, a list, or classes"
        raise InputError("budget", text, expected)
    return {"kind": "equal", "amount": number_of(text)}
