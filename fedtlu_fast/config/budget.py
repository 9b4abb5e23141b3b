"""Defines the settings of client budgets: how many layers, or what share of the work, each can train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from fedtlu_fast.config.chooser import Chooser, number_of
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.errors import InputError
from fedtlu_fast.registry import names
from fedtlu_fast.selection.budgets import Budget, Equal


class BudgetConfig(PartsSection):
    """Holds the budgets of the clients; see `selection.budgets`."""

    kind: Annotated[Budget, Chooser("budget", base=Budget)] = Field(
        Equal(),
        description="how budgets are given to clients: equal | uniform (from low to high) | half_normal "
        "(many near low, few near high) | list (client by client) | classes (kinds of devices) | "
        "package.module:Name; short forms: 2, 1..4, half_normal:1..4, [1, 2, 4]",
    )

    @property
    def budget(self) -> Budget:
        """Returns the part that `kind` chooses."""
        return self.kind

    @classmethod
    def spelled_out(cls, given: Any) -> Any:
        """Expands the short forms of a budget; anything else is left for validation.

        ``2`` stands for equal, ``1..4`` for uniform, ``half_normal:1..4`` for half_normal, ``[1, 2, 4]`` for
        list, and a mapping of mappings for classes.
        """
        if isinstance(given, Mapping):
            classes = bool(given) and all(isinstance(item, Mapping) for item in given.values())
            if classes and "classes" not in given:
                return {"kind": "classes", "classes": given}
            return super().spelled_out(given)
        if isinstance(given, int | float) and not isinstance(given, bool):
            return {"kind": "equal", "amount": given}
        if isinstance(given, str):
            return _read(given)
        if isinstance(given, Sequence):
            return {"kind": "list", "values": given}
        return {"kind": given} if isinstance(given, Budget) else given


def _read(text: str) -> dict[str, Any]:
    kind, colon, numbers = text.rpartition(":")
    low, dots, high = numbers.partition("..")
    if dots:
        return {"kind": kind if colon else "uniform", "low": number_of(low), "high": number_of(high)}
    if colon and kind not in names("budget") and numbers.isidentifier():
        return {"kind": text}
    if colon or number_of(text) is text:
        expected = "a number such as 2, a range such as 1..4 or half_normal:1..4, a list, or classes"
        raise InputError("budget", text, expected)
    return {"kind": "equal", "amount": number_of(text)}
