"""Defines sequences that lie, raise errors, lose items, or change arguments while they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from fuzz.memory import Array, Dice, is_array


class PlannedError(Exception):
    """The error that a sequence raises on purpose."""


class Watched:
    """Is a sequence through __getitem__ alone, and remembers the items that it gave."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values
        self.seen: list[Any] = []

    def __getitem__(self, index: int) -> Any:
        if index == 0:
            self.seen = []
        self.seen.append(self.values[index])
        return self.seen[-1]


class Fleeting(Watched):
    """Gives copies without other references, which the binding has to keep alive while it computes."""

    def __getitem__(self, index: int) -> Any:
        given = super().__getitem__(index)
        if not is_array(given):
            return given
        self.seen[-1] = given.copy()
        return given.copy()


class Liar(Watched):
    """Claims another length."""

    def __init__(self, values: list[Any], length: Any) -> None:
        super().__init__(values)
        self.length = length

    def __len__(self) -> int:
        if isinstance(self.length, Exception):
            raise self.length
        return int(self.length)


class Raising(Watched):
    """Raises an error at some item."""

    def __init__(self, values: list[Any], at: int, error: Exception) -> None:
        super().__init__(values)
        self.at = at
        self.error = error

    def __getitem__(self, index: int) -> Any:
        if index >= self.at:
            raise self.error
        return super().__getitem__(index)


class Busy(list[Any]):
    """Is a list that acts between its items, for example forgets them."""

    def __init__(self, values: list[Any], act: Callable[[Any], None]) -> None:
        super().__init__(values)
        self.act = act
        self.seen: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        self.seen = []
        index = 0
        while index < len(self):
            self.seen.append(self[index])
            yield self[index]
            if index == 0:
                self.act(self)
            index += 1


def _recursive() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


def reshape(target: Array, dice: Dice) -> Callable[[Any], None]:
    """Changes the target after it may have been checked; it never gets more memory."""

    def act(_: Any) -> None:
        kind = dice.randrange(5)
        if kind == 0:
            target.flags.writeable = False
        elif target.ndim != 1 or not target.size:
            return
        elif kind == 1:
            target.dtype = np.dtype("i2")
        elif kind == 2:
            target.dtype = np.dtype("u1")
        elif kind == 3:
            target.shape = (1, target.size)
        elif target.nbytes % 8 == 0:
            target.dtype = np.dtype("f8") if target.dtype != np.dtype("f8") else np.dtype("f4")

    return act


def strange(values: list[Any], target: Array | None, dice: Dice) -> Any:
    """Returns a strange object in place of a list of these values."""
    kind = dice.randrange(13)
    if kind == 0:
        return Watched(values)
    if kind in (1, 2):
        return Fleeting(values)
    if kind == 3:
        return Liar(values, dice.choice((0, 1, -1, 1000, 2**62, PlannedError("length"))))
    if kind == 4:
        errors = (PlannedError("item"), IndexError("item"), ValueError("item"), StopIteration())
        return Raising(values, dice.randrange(len(values) + 1), dice.choice(errors))
    if kind == 5:
        return Busy(values, dice.choice((list.clear, list.pop, list.reverse)))
    if kind in (6, 7) and target is not None:
        return Busy(values, reshape(target, dice))
    if kind == 8:
        return dice.choice((iter(values), dict(enumerate(values)), None, 3, object()))
    if kind == 9:
        return dice.choice(("ab", "\ud800", b"float32", _recursive(), [values], range(3)))
    if kind == 10:
        holder = np.empty(len(values), dtype=object)
        for index, value in enumerate(values):
            holder[index] = value
        return holder
    arrays = [value for value in values if isinstance(value, np.ndarray)]
    if kind == 11 and len({(array.shape, array.dtype) for array in arrays}) == 1:
        return np.stack(arrays)  # its rows are views that live no longer than the tuple of them
    return tuple(values)
