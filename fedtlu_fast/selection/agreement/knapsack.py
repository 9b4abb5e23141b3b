"""Finds the best set of layers within each budget: 0/1 knapsacks with a fee for the way to the lowest layer.

The method is depth-first branch and bound (Horowitz and Sahni, 1974) in the order of value for cost, with
Dantzig's bound. It is exact; a search that takes too long ends, and gives a bound instead of a proof.
"""

from __future__ import annotations

from itertools import groupby
from math import inf
from typing import NamedTuple

import numpy as np

from fedtlu_fast.selection.agreement.limits import Floats, Mask

try:
    from fedtlu_fast.ops.native import extension
except ImportError:  # Built without C++; `knapsacks` then computes the same bits in Python, more slowly.
    extension = None  # type: ignore[assignment]

SAME = 1e-13
"""Sets that are better by less count as equal, because sums in another order differ by as much."""


def knapsacks(
    values: Floats, rooms: Floats, costs: Floats, reach: Floats, nodes: int
) -> tuple[Mask, Floats, Floats]:
    """Returns the best set of each row, its value, and an upper bound of the value of any set.

    A set fits if the costs of its layers and the reach of its lowest layer add up to at most the row's room.
    Of sets with equal values always the same one is found.

    Args:
        values: [D, L], the value of each layer to each row; only layers of positive value are taken. Divided
            by its cost each is a normal number, between 1e-307 and 1e308; else a bound may be too small.
        rooms: [D], what a set of each row may cost.
        costs: [L], not negative.
        reach: [L], not negative and non-increasing.
        nodes: the number of nodes after which the search of a row ends.

    Returns:
        The sets [D, L], their values [D], and the bounds [D], which are the values themselves unless a search
        ended early.
    """
    if extension is None:
        return in_python(values, rooms, costs, reach, nodes)
    flat, rooms = np.ascontiguousarray(values).reshape(-1), np.ascontiguousarray(rooms)
    costs, reach = np.ascontiguousarray(costs), np.ascontiguousarray(reach)
    return extension.knapsacks(flat, rooms, costs, reach, nodes)


def in_python(
    values: Floats, rooms: Floats, costs: Floats, reach: Floats, nodes: int
) -> tuple[Mask, Floats, Floats]:
    """Computes `knapsacks` without the C++ extension (``csrc/knapsack.cpp``), bit for bit the same."""
    mask = np.zeros(values.shape, dtype=np.bool_)
    best, upper = np.zeros(len(values)), np.zeros(len(values))
    for row, (own, room) in enumerate(zip(values.tolist(), rooms.tolist(), strict=True)):
        search = _Search(own, costs.tolist(), room, nodes)
        search.run(reach.tolist())
        mask[row, list(search.layers)] = True
        best[row], upper[row] = search.best, max(search.upper, search.best)
    return mask, best, upper


class _Item(NamedTuple):
    """Holds a layer that may be taken."""

    value: float
    cost: float
    worth: float
    """The value for each unit of cost."""
    layer: int


class _Start(NamedTuple):
    """Holds sets of some layers, beside those that all of these sets hold."""

    value: float
    room: float
    first: int
    """The layers from this one on may be taken."""
    held: tuple[int, ...]


class _Search:
    """Searches the best set of one row."""

    def __init__(self, values: list[float], costs: list[float], room: float, nodes: int) -> None:
        self.values, self.costs, self.room, self.left = values, costs, room, nodes
        items = [
            _Item(value, cost, value / cost if cost else inf, layer)
            for layer, (value, cost) in enumerate(zip(values, costs, strict=True))
            if value > 0 and cost <= room
        ]
        self.items = sorted(items, key=lambda item: (-item.worth, item.layer))
        self.best = self.upper = 0.0
        self.layers: tuple[int, ...] = ()
        self.few: list[_Item] = []
        self.closed: dict[float, int] = {}
        """For a cost, the item that was left out, since which no other of this cost is taken."""

    def run(self, reach: list[float]) -> None:
        """Searches the sets of every lowest layer, the most promising ones first."""
        starts = [(self._bound_of(start), start) for start in self._starts(reach)]
        if not starts:
            return
        first = max(range(len(starts)), key=lambda place: starts[place][0])
        starts[0], starts[first] = starts[first], starts[0]
        for bound, start in starts:
            if not bound > self._enough():
                continue
            if self.left <= 0:
                self.upper = max(self.upper, bound)
                continue
            self._search(start)

    def _enough(self) -> float:
        return self.best * (1 + SAME)

    def _starts(self, reach: list[float]) -> list[_Start]:
        starts = []
        for way, run in groupby(range(len(reach)), key=reach.__getitem__):
            # These layers have the same way down, which pays for all of them.
            layer, *others = run
            room = self.room - way
            if others and room >= 0:
                starts.append(_Start(0.0, room, layer, ()))
            elif not others and self.values[layer] > 0 and self.costs[layer] <= room:
                # A set that pays this way for nothing is a set of the layers above, so it holds this layer.
                starts.append(_Start(self.values[layer], room - self.costs[layer], layer + 1, (layer,)))
        return starts

    def _items_of(self, start: _Start) -> list[_Item]:
        return [item for item in self.items if item.layer >= start.first and item.cost <= start.room]

    def _bound_of(self, start: _Start) -> float:
        self.few, self.closed = self._items_of(start), {}
        return self._bound(0, start.value, start.room)

    def _bound(self, place: int, value: float, room: float) -> float:
        """Returns the most that a branch can be worth, if its last item may be taken in part."""
        for next_place in range(place, len(self.few)):
            item = self.few[next_place]
            if self.closed.get(item.cost, next_place) < next_place:
                continue
            if item.cost > room:
                return value + room * item.worth
            value += item.value
            room -= item.cost
        return value

    def _search(self, start: _Start) -> None:
        self.few, self.closed = self._items_of(start), {}
        place, value, room = 0, start.value, start.room
        path: list[tuple[int, float, float]] = []
        while True:
            self.left -= 1
            if self.left < 0:
                self._abandon(path, place, value, room)
                return
            if self._bound(place, value, room) > self._enough():
                while place < len(self.few):
                    item = self.few[place]
                    if not self.closed.get(item.cost, place) < place:
                        if item.cost > room:
                            break
                        path.append((place, value, room))
                        value += item.value
                        room -= item.cost
                    place += 1
                if place < len(self.few):
                    # This item does not fit, so others of its cost do not fit either.
                    self.closed[self.few[place].cost] = place
                    place += 1
                    continue
                if value > self.best:
                    self.best = value
                    self.layers = (*start.held, *(self.few[taken].layer for taken, _, _ in path))
            if not path:
                return
            # Try it without the item that was taken last, and so without the lesser ones of its cost.
            place, value, room = path.pop()
            self._leave(place)
            place += 1

    def _leave(self, place: int) -> None:
        self.closed = {cost: since for cost, since in self.closed.items() if since <= place}
        self.closed[self.few[place].cost] = place

    def _abandon(self, path: list[tuple[int, float, float]], place: int, value: float, room: float) -> None:
        """Bounds what was not searched: the current branch, and those without each item on the way to it."""
        self.upper = max(self.upper, self._bound(place, value, room))
        for taken, before, left in reversed(path):
            self._leave(taken)
            self.upper = max(self.upper, self._bound(taken + 1, before, left))
