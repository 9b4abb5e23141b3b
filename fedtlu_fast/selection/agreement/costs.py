"""Budgets in parameters or FLOPs: the best set is a knapsack, with a fee for going down to a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.selection.agreement.limits import Floats, Mask

SUMS = 1024
"""Sums of costs that are told apart."""
CELLS = 2**19
"""Of the table of one pass."""
ROUNDING = 1e-12
"""A set that costs its budget up to this relative error fits: 0.1 + 0.2 is within 0.3."""
SAME = 1e-13
"""Sums of costs that differ by less, relatively, are one."""


Columns = slice | NDArray[np.int64]


@dataclass(frozen=True)
class Levels:
    """The sums of costs that the table has columns for, and where each layer leads from each of them.

    Attributes:
        sums: [M], ascending, from 0.
        sources: [L, M], the column that a layer leads to this one from; -1: none.
    """

    sums: Floats
    sources: NDArray[np.int64]

    @cached_property
    def moves(self) -> list[tuple[Columns, Columns]]:
        """For each layer the columns that it leads from, and those to; as slices, which are faster."""
        found: list[tuple[Columns, Columns]] = []
        for sources in self.sources:
            (to,) = np.nonzero(sources >= 0)
            shift = len(sources) - len(to)
            if len(to) and (to - sources[to] == shift).all():
                found.append((slice(0, len(to)), slice(shift, None)))
            else:
                found.append((sources[to], to))
        return found


@dataclass(frozen=True)
class Costs:
    """Budgets in what training costs: a set costs the sum of its layers, and the way down to its lowest one.

    The best set is found by dynamic programming over the sums of costs, from the output down, for all rows at
    once. It is the best where layers' costs have at most SUMS different sums within the largest budget: like
    layers, a few kinds of layers, or up to 10 layers of any cost. Otherwise costs are rounded up to SUMS
    steps of the largest budget, and what that leaves is filled with layers that fit. No set is over its
    budget.

    Attributes:
        budgets: [D].
        costs: [L], of training each layer.
        reach: [L], non-increasing: of going down from the output to this layer, paid once.
    """

    budgets: Floats
    costs: Floats
    reach: Floats

    def fits(self, layers: Mask) -> Mask:
        """See `Limits.fits`."""
        return self._within(layers, self.budgets)

    def _within(self, layers: Mask, budgets: Floats) -> Mask:
        spent = np.where(layers, self.costs, 0.0).sum(-1) + np.where(layers, self.reach, 0.0).max(-1)
        fitting: Mask = spent <= budgets * (1 + ROUNDING)
        return fitting

    def best_set(self, row: int, values: Floats) -> Mask:
        """See `Limits.best_set`."""
        found: Mask = self._best_sets(values[None], self.budgets[row : row + 1])[0]
        return found

    def common(self) -> Costs:
        """See `Limits.common`."""
        return Costs(self.budgets.min(keepdims=True), self.costs, self.reach)

    def best_sets(self, values: Floats) -> Mask:
        """See `Limits.best_sets`; it may not be the best where costs are rounded."""
        rows = values.reshape(-1, values.shape[-1])
        budgets = np.broadcast_to(self.budgets, values.shape[:-1]).reshape(-1)
        return self._best_sets(rows, budgets).reshape(values.shape)

    def _best_sets(self, values: Floats, budgets: Floats) -> Mask:
        exact = self._exact_levels
        levels = exact or self._grid(np.ceil)
        parts = _parts(values, budgets, levels)
        mask = np.concatenate([_best(*part, self.reach, levels)[0] for part in parts])
        if exact is None:
            self._fill_(mask, values, budgets)
        return mask

    def relaxed(self, values: Floats) -> tuple[Mask, Floats]:
        """See `Limits.relaxed`; where costs are rounded they are rounded down."""
        levels = self._exact_levels or self._grid(np.floor)
        parts = [_best(*part, self.reach, levels) for part in _parts(values, self.budgets, levels)]
        return np.concatenate([mask for mask, _ in parts]), np.concatenate([worth for _, worth in parts])

    @cached_property
    def _exact_levels(self) -> Levels | None:
        """Every sum of costs within the largest budget; None when they are too many or too near."""
        sums, most = np.zeros(1), self.budgets.max() * (1 + ROUNDING)
        for cost in self.costs:
            sums = np.sort(np.concatenate([sums, (sums + cost)[sums + cost <= most]]))
            sums = sums[np.diff(sums, prepend=-1.0) > SAME * sums]
            if len(sums) > SUMS:
                return None
        sources = np.full((len(self.costs), len(sums)), -1)
        for layer, cost in enumerate(self.costs):
            targets = np.searchsorted(sums, (sums + cost) * (1 - SAME))
            there = np.nonzero(targets < len(sums))[0]
            there = there[sums[targets[there]] <= (sums[there] + cost) * (1 + SAME)]
            if len(np.unique(targets[there])) < len(there):
                return None  # A cost so small beside this one that sums lose it.
            sources[layer, targets[there]] = there
        return Levels(sums, sources)

    def _grid(self, rounded: Callable[[Floats], Floats]) -> Levels:
        """SUMS steps up to the largest budget."""
        unit = self.budgets.max() / SUMS
        steps = np.minimum(rounded(self.costs / unit), SUMS + 1).astype(np.int64)
        columns = np.arange(SUMS + 1)
        return Levels(columns * unit, np.maximum(columns - steps[:, None], -1))

    def _fill_(self, mask: Mask, values: Floats, budgets: Floats) -> None:
        """Adds layers that still fit, those of the largest value first."""
        every = np.arange(len(values))
        for layer in np.argsort(-values, axis=1, kind="stable").T:
            fuller = mask.copy()
            fuller[every, layer] |= values[every, layer] > 0
            np.copyto(mask, fuller, where=self._within(fuller, budgets)[:, None])


def _parts(values: Floats, budgets: Floats, levels: Levels) -> list[tuple[Floats, Floats]]:
    """Values and budgets of as many rows at a time as the table has room for."""
    rows = max(1, CELLS // levels.sources.size)
    return [(values[at : at + rows], budgets[at : at + rows]) for at in range(0, len(values), rows)]


def _best(values: Floats, budgets: Floats, reach: Floats, levels: Levels) -> tuple[Mask, Floats]:
    """The best sets [n, L], and their values [n], as the levels tell sums apart."""
    rows, layers = values.shape
    table = np.full((rows, len(levels.sums)), -np.inf)
    table[:, 0] = 0.0
    taken = np.zeros((layers, *table.shape), dtype=np.bool_)
    best, lowest, column = np.zeros(rows), np.full(rows, layers), np.zeros(rows, dtype=np.int64)
    for layer in range(layers - 1, -1, -1):
        before, after = levels.moves[layer]
        value = np.where(values[:, layer] > 0, values[:, layer], -np.inf)
        with_it = table[:, before] + value[:, None]
        without = table[:, after]
        taken[layer][:, after] = with_it > without
        table[:, after] = np.maximum(with_it, without)
        if layer and reach[layer - 1] == reach[layer]:
            continue  # Going on to the next layer costs nothing.
        # A set of layers from here on fits if it does with the way down to here.
        within = np.searchsorted(levels.sums, budgets * (1 + ROUNDING / 2) - reach[layer], side="right")
        reached = np.where(np.arange(len(levels.sums)) < within[:, None], table, -np.inf)
        found = reached.argmax(1)
        worth = np.take_along_axis(reached, found[:, None], 1)[:, 0]
        improved = worth > best
        best[improved], lowest[improved], column[improved] = worth[improved], layer, found[improved]
    mask = np.zeros((rows, layers), dtype=np.bool_)
    every = np.arange(rows)
    for layer in range(layers):
        mask[:, layer] = (layer >= lowest) & taken[layer, every, column]
        column = np.where(mask[:, layer], levels.sources[layer, column], column)
    return mask, best
