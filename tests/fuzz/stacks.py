"""Fuzzes the operations on a cohort's stack: draws calls that are valid, and computes the right answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from fuzz.memory import Array, Dice, Memory, address
from fuzz.oracle import Expected, WrongError, beside, decode, items, need, vector

FUNCTIONS = ("sorted_mean", "squared_distances", "squared_distance_bounds", "squared_distances_from")
COUNTS = ("first", "last", "chosen")


def valid(function: str, dice: Dice, memory: Memory) -> dict[str, Any]:
    """Draws a stack of up to 40 clients, small or long ones."""
    number = dice.randrange(1, 40) if dice.rarely() else dice.randrange(1, 9)
    length = dice.randrange(1000, 70_000) if dice.rarely() and number < 9 else dice.randrange(80)
    rows = [_floats(dice, memory, length) for _ in range(number)]
    args: dict[str, Any] = {"clients": rows if dice.often() else tuple(rows)}
    if function == "sorted_mean":
        args["out"] = dice.choice(rows) if dice.rarely() else _floats(dice, memory, length)
        args["out"].flags.writeable = True
        args["base"] = _floats(dice, memory, length) if dice.often() else None
        args["first"] = dice.randrange(number)
        args["last"] = dice.randint(args["first"] + 1, number)
    if function == "squared_distances":
        args["chosen"] = dice.randint(0, number)
    if function == "squared_distances_from":
        args["base"] = _floats(dice, memory, length)
        args["centre"] = _floats(dice, memory, length) if dice.often() else None
    return args | {"threads": dice.choice((1, 2, 3, np.int64(2), True))}


def _floats(dice: Dice, memory: Memory, length: int) -> Array:
    kind = dice.choice(("normal", "normal", "shifted", "wide", "specks", "bits"))
    values = dice.bulk.normal(size=length).astype(np.float32)
    if kind == "bits":
        values = np.frombuffer(dice.bulk.bytes(4 * length), dtype=np.float32)
    elif kind == "shifted":
        values += np.float32(100)
    elif kind == "wide":
        values = (values * 10.0 ** dice.bulk.uniform(-44, 37, length)).astype(np.float32)
    elif kind == "specks" and length:
        values[dice.bulk.integers(length, size=2)] = (np.nan, -np.inf)
    placed = memory.put(values)
    while address(placed) % 4:
        placed = memory.put(values)
    placed.flags.writeable = not dice.rarely()
    return placed


def answer(function: str, args: dict[str, Any]) -> Expected:
    """Computes the right answer; raises `UnfitError` if the call must be refused."""
    given = items(args["clients"])
    like = {"sorted_mean": "out", "squared_distances_from": "base"}.get(function)
    if like is None and not given:  # no clients have no distances
        need(function == "squared_distance_bounds" or _count(args["chosen"]) == 0, "chosen")
        none = np.zeros((0, 0))
        return _close(none) if function == "squared_distances" else _around(none, 0)
    first = _plain(args[like] if like else given[0], None, like or "clients")
    rows = [_plain(row, first.size, "clients") for row in given]
    stack = np.array([decode(row, "float32", "clients") for row in rows]).reshape(len(rows), first.size)
    if function == "sorted_mean":
        return _sorted_mean(args, first, rows)
    if function == "squared_distances_from":
        origin = decode(first, "float32", "base")
        if args["centre"] is not None:
            origin = origin + decode(_plain(args["centre"], first.size, "centre"), "float32", "centre")
        return _close(np.square(stack - origin).sum(axis=1))
    chosen = len(rows)
    if function == "squared_distances":
        chosen = _count(args["chosen"])
        need(0 <= chosen <= len(rows), "chosen")
    exact = np.array([np.square(stack[i] - stack).sum(axis=1) for i in range(chosen)])
    exact = exact.reshape(chosen, len(rows))
    np.fill_diagonal(exact, 0)
    return _close(exact) if function == "squared_distances" else _around(exact, first.size)


def _plain(array: Any, size: int | None, what: str) -> Array:
    plain = vector(array, "f", 4, what)
    need(address(plain) % 4 == 0 and (size is None or plain.size == size), what)
    return plain


def _count(number: Any) -> int:
    number = getattr(number, "answer", number)  # of a fault's __index__
    need(isinstance(number, (int, np.integer)), "a count")
    return int(number)


def _sorted_mean(args: dict[str, Any], out: Array, rows: list[Array]) -> Expected:
    first, last = _count(args["first"]), _count(args["last"])
    need(0 <= first < last <= len(rows), "places")
    need(out.flags.writeable, "read-only target")
    changes = np.array(rows).reshape(len(rows), out.size)
    for row in rows:
        beside(row, out, "clients")
    if args["base"] is not None:
        base = _plain(args["base"], out.size, "base")
        beside(base, out, "base")
        changes = changes - base
    total = np.zeros(out.size)
    for row in np.sort(changes, axis=0)[first:last]:
        total += row.astype(np.float64)
    return Expected((total / (last - first)).astype(np.float32), np.ones(out.shape, dtype=bool))


def _matrix(got: Any, like: Array) -> Array:
    if not isinstance(got, np.ndarray) or got.dtype != np.float64 or got.shape != like.shape:
        raise WrongError(f"answered {type(got)}")
    return got


def _close(exact: Array) -> Expected:
    def judge(got: Any, _: Array | None) -> None:
        with np.errstate(all="ignore"):
            near = np.abs(_matrix(got, exact) - exact) <= 1e-12 * exact
        if not (near | (got == exact) | (np.isnan(got) & np.isnan(exact))).all():
            raise WrongError(f"distances {got!r}, not {exact!r}")

    return Expected(judge=judge)


def _around(exact: Array, size: int) -> Expected:
    def judge(got: Any, _: Array | None) -> None:
        if not isinstance(got, tuple) or len(got) != 2:
            raise WrongError(f"answered {type(got)}")
        lower, upper = (_matrix(bound, exact) for bound in got)
        with np.errstate(all="ignore"):
            holds = (lower <= exact * (1 + 1e-12)) & (exact * (1 - 1e-12) <= upper)
            known = np.where(
                np.isinf(upper), lower == 2.0**127, upper - lower <= 5e-6 * exact + size * 2.0**-147
            )
        unknown = np.isnan(lower) & np.isnan(upper) & np.isnan(exact)
        if not (holds & known | unknown).all():
            raise WrongError(f"bounds {lower!r} and {upper!r} of {exact!r}")

    return Expected(judge=judge)
