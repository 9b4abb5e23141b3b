"""Solves budgets in parameters or FLOPs: a knapsack with a fee for the way down to the lowest layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.selection.agreement.limits import Floats, Mask

SUMS = 1024
"""The largest number of different sums of costs in the table."""
CELLS = 2**19
"""The largest number of cells in the table of one pass."""
ROUNDING = 1e-12
"""The relative excess over a budget that still fits, so that 0.1 + 0.2 is within 0.3."""
SAME = 1e-13
"""Sums of costs with a smaller relative difference count as equal."""


Columns = slice | NDArray[np.int64]


@dataclass(frozen=True)
class Levels:
    """Holds the columns of the table, one for each sum of costs, and how layers lead from column to column.

    Attributes:
        sums: [M], the sums of costs, ascending from 0.
        sources: [L, M], the column from which adding a layer leads to this column; -1 if there is none.
    """

    sums: Floats
    sources: NDArray[np.int64]

    @cached_property
    def moves(self) -> list[tuple[Columns, Columns]]:
        """Returns for each layer the columns that it leads from and to; slices if possible, for speed."""
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
    """Limits the cost of a set: the sum of its layers' costs plus the way down to its lowest layer.

    The best set is found by dynamic programming over the sums of costs, from the output down, for all rows
    together. It is optimal if the layers' costs have at most SUMS different sums within the largest budget,
    which holds for like layers, a few kinds of layers, or up to 10 layers of any cost. Otherwise costs are
    rounded up to SUMS steps of the largest budget, and the rest of the budget is filled with layers that fit.
    No set exceeds its budget.

    Attributes:
        budgets: [D], the budget of each row.
        costs: [L], the cost of training each layer.
        reach: [L], non-increasing, the cost of the way from the output down to this layer, paid once.
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
        """See `Limits.best_sets`; the sets may not be optimal if costs are rounded."""
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
        """See `Limits.relaxed`; if costs have to be rounded, they are rounded down."""
        levels = self._exact_levels or self._grid(np.floor)
        parts = [_best(*part, self.reach, levels) for part in _parts(values, self.budgets, levels)]
        return np.concatenate([mask for mask, _ in parts]), np.concatenate([worth for _, worth in parts])

    @cached_property
    def _exact_levels(self) -> Levels | None:
        """Returns every sum of costs within the largest budget; None if they are too many or too close."""
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
                return None  # Some cost is so small beside this one that it vanishes in sums.
            sources[layer, targets[there]] = there
        return Levels(sums, sources)

    def _grid(self, rounded: Callable[[Floats], Floats]) -> Levels:
        """Divides the largest budget into SUMS equal steps and rounds costs to them."""
        unit = self.budgets.max() / SUMS
        steps = np.minimum(rounded(self.costs / unit), SUMS + 1).astype(np.int64)
        columns = np.arange(SUMS + 1)
        return Levels(columns * unit, np.maximum(columns - steps[:, None], -1))

    def _fill_(self, mask: Mask, values: Floats, budgets: Floats) -> None:
        """Adds layers that still fit, the largest values first."""
        every = np.arange(len(values))
        for layer in np.argsort(-values, axis=1, kind="stable").T:
            fuller = mask.copy()
            fuller[every, layer] |= values[every, layer] > 0
            np.copyto(mask, fuller, where=self._within(fuller, budgets)[:, None])


def _parts(values: Floats, budgets: Floats, levels: Levels) -> list[tuple[Floats, Floats]]:
    """Splits values and budgets into parts of as many rows as the table has room for."""
    rows = max(1, CELLS // levels.sources.size)
    return [(values[at : at + rows], budgets[at : at + rows]) for at in range(0, len(values), rows)]


def _best(values: Floats, budgets: Floats, reach: Floats, levels: Levels) -> tuple[Mask, Floats]:
    """Returns the best sets [n, L] and their values [n], for sums of costs as in the levels."""
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
            continue  # The way to the next layer below is free, so sets that end there are at least as good.
        # Sets whose lowest layer is this one or above fit if their costs and the reach of this layer do.
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
