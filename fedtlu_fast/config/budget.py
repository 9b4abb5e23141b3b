"""Settings: how many layers, or what share of the work, each client can train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from fedtlu_fast.config.parts_section import Chooser, PartsSection, number_of
from fedtlu_fast.errors import InputError
from fedtlu_fast.registry import names
from fedtlu_fast.selection.budgets import Budget, Equal


class BudgetConfig(PartsSection):
    """Budgets of the clients; see `selection.budgets`."""

    kind: Annotated[Budget, Chooser("budget", base=Budget)] = Field(
        Equal(),
        description="equal | uniform (low to high) | half_normal (most near low, few near high) | list (in "
        "turn) | classes (devices) | package.module:Name; short: 2, 1..4, half_normal:1..4, [1, 2, 4]",
    )

    @property
    def budget(self) -> Budget:
        """The part that `kind` chooses."""
        return self.kind

    @classmethod
    def spelled_out(cls, given: Any) -> Any:
        """See `Section`.

        ``2`` is equal, ``1..4`` uniform, ``half_normal:1..4`` (or ``uniform:1..4``) by that name, ``[1, 2,
        4]`` a list; a mapping from names to mappings is one of classes. Anything else is left for validation.
        """
        if isinstance(given, Mapping):
            classes = bool(given) and all(isinstance(item, Mapping) for item in given.values())
            return {"kind": "classes", "classes": given} if classes and "classes" not in given else given
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
