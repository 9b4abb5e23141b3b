"""Fuzzes the search for the best layers within budgets: draws calls, and tries all sets of few layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from fuzz.memory import Array, Dice, Memory
from fuzz.oracle import Expected, WrongError, decode, need

TRIED = 10
"""Beyond this many layers, sets are only checked, and not compared with all others."""


def valid(dice: Dice, memory: Memory) -> dict[str, Any]:
    """Draws up to 6 rows of up to 10 layers, sometimes up to 60; some costs, values and reaches are equal."""
    rows, layers = dice.randrange(7), dice.randrange(60) if dice.rarely() else dice.randrange(TRIED + 1)
    costs, values = dice.bulk.random(layers), dice.bulk.normal(size=rows * layers)
    reach = np.sort(dice.bulk.random(layers))[::-1] * dice.choice((0.0, 0.5, 2.0))
    if dice.often():
        costs = np.ceil(3 * costs) / 3 * dice.choice((1.0, 1e-300, 1e300))
        values, reach = np.round(2 * values), np.round(2 * reach)
    rooms = dice.bulk.random(rows) * (costs.sum() + reach.sum()) * dice.choice((0.5, 1.0, 2.0))
    given = {"values": values, "rooms": rooms, "costs": costs, "reach": reach}
    placed = {name: memory.put(np.ascontiguousarray(numbers)) for name, numbers in given.items()}
    return placed | {"nodes": dice.choice((0, 1, 7, 100_000))}


def answer(args: dict[str, Any]) -> Expected:
    """Checks sizes; what the search found is judged by its own promises (`csrc/knapsack.h`)."""
    values, rooms, costs, reach = (
        decode(args[name], "float64", name) for name in ("values", "rooms", "costs", "reach")
    )
    need(isinstance(args["nodes"], (int, np.integer)), "nodes")
    need(len(costs) == len(reach), "reach")
    need(len(values) == len(rooms) * len(costs), "values")
    matrix = values.reshape(len(rooms), len(costs))
    return Expected(judge=lambda found, _: _judge(found, matrix, rooms, costs, reach, args["nodes"]))


def _judge(found: Any, values: Array, rooms: Array, costs: Array, reach: Array, nodes: Any) -> None:
    """Raises `WrongError` for a set that does not fit, a wrong value of it, or a bound below the best set."""
    if not isinstance(found, tuple) or len(found) != 3 or found[0].shape != values.shape:
        raise WrongError(f"answered {type(found)}")
    sound = [np.isfinite(numbers).all() for numbers in (values, rooms, costs, reach)]
    if (
        not all(sound)
        or any((numbers < 0).any() for numbers in (rooms, costs, reach))
        or (np.diff(reach) > 0).any()
    ):
        return  # no promise but to return
    with np.errstate(all="ignore"):
        worth = values[:, costs > 0] / costs[costs > 0]
    if ((values[:, costs > 0] > 0) & ~((worth >= np.finfo(float).tiny) & (worth < np.inf))).any():
        return  # such layers cannot be put into the order of the search
    for row, (mask, best, upper) in enumerate(zip(*found, strict=True)):
        with np.errstate(all="ignore"):
            spent = costs[mask].sum() + (reach[mask.argmax()] if mask.any() else 0)
            worth = values[row][mask].sum()
        if (mask & (values[row] <= 0)).any() or spent > rooms[row] * (1 + 1e-9):
            raise WrongError(f"row {row} holds {mask}, which costs {spent} of {rooms[row]}")
        if not np.isclose(best, worth, 1e-9) or not upper >= best:
            raise WrongError(f"row {row} is worth {worth}, not {best} up to {upper}")
        if len(costs) <= TRIED and upper < _most(values[row], rooms[row], costs, reach) * (1 - 1e-9):
            raise WrongError(f"row {row} has a set above {upper}")
        if int(nodes) >= 100_000 and len(costs) <= TRIED and upper != best:
            raise WrongError(f"row {row} was not searched to its end: {best} up to {upper}")


def _most(values: Array, room: float, costs: Array, reach: Array) -> float:
    """Tries all sets; those that fit by a hair may count as too large."""
    layers = len(costs)
    sets = (np.arange(2**layers)[:, None] >> np.arange(layers) & 1).astype(bool)[1:]
    if not len(sets):
        return 0.0
    spent = sets @ costs + reach[sets.argmax(axis=1)]
    return max(0.0, float((sets @ values)[spent <= room * (1 - 1e-9)].max(initial=0.0)))
