"""Draws random calls that the binding must accept, with the argument names of `_native.pyi`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from fuzz.knapsacks import valid as knapsacks
from fuzz.memory import Array, Dice, Memory
from fuzz.oracle import NAMES, wide
from fuzz.perceptron import valid as perceptrons
from fuzz.stacks import FUNCTIONS as STACKS
from fuzz.stacks import valid as stacks

TILE = 16384
# How often each is called, beside the others. accumulate_ counts as two: with and without offsets.
SHARES = {
    "layer_stats": 3,
    "layer_stats_list": 3,
    "accumulate_": 4,
    "aggregate": 5,
    "masked_apply_": 4,
    "train_perceptrons": 4,
    "knapsacks": 2,
    "read_loop": 1,
    "set_simd_level": 1,
    **dict.fromkeys(STACKS, 1),
}
STORAGE = {"float32": ("f4",), "bfloat16": ("i2", "u2"), "float16": ("i2", "u2"), "float64": ("f8",)}


def size(dice: Dice) -> int:
    """Draws a size: mostly small, sometimes about a tile or enough for two threads."""
    draw = dice.random()
    if draw < 0.05:
        return 0
    if draw < 0.6:
        return dice.randrange(1, 40)
    if draw < 0.96:
        return dice.randrange(40, 400)
    if draw < 0.99:
        return dice.choice((1, 2, 3)) * TILE + dice.randrange(-2, 3)
    return dice.randrange(100_000, 300_000)


def storage(dice: Dice, name: str) -> np.dtype[Any]:
    return np.dtype(dice.choice(STORAGE[name]))


def encode(values: Array, name: str, dtype: np.dtype[Any]) -> Array:
    """Converts to the nearest numbers of a dtype, in the binding's form (bfloat16 is truncated)."""
    with np.errstate(all="ignore"):
        if name == "float16":
            return values.astype(np.float16).view(dtype)
        if name == "bfloat16":
            return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(dtype)
        return values.astype(dtype)


def numbers(dice: Dice, length: int, name: str) -> Array:
    dtype, bulk = storage(dice, name), dice.bulk
    kind = dice.choice(("normal", "shifted", "wide", "constant", "specks", "bits", "zeros"))
    if kind == "bits":
        return np.frombuffer(bulk.bytes(length * dtype.itemsize), dtype=dtype)
    values = bulk.normal(size=length)
    if kind == "shifted":
        values += dice.choice((1e2, -1e4, 1e6))
    elif kind == "wide":
        values *= 10.0 ** bulk.uniform(-46, 38, length)
    elif kind == "constant":
        values[:] = dice.gauss(0, 1)
    elif kind == "zeros":
        values = np.copysign(0.0, values)
    elif kind == "specks" and length:
        values[bulk.integers(length, size=3)] = (math.nan, math.inf, -math.inf)
    return encode(values, name, dtype)


def vector(dice: Dice, memory: Memory, length: int, name: str) -> Array:
    """Draws an input, sometimes in read-only pages."""
    if dice.rarely():
        pages = memory.pages.vector(dice, storage(dice, name), length)
        if pages is not None:
            return pages
    array = memory.put(numbers(dice, length, name))
    array.flags.writeable = not dice.rarely()
    return array


def offsets(dice: Dice, memory: Memory, length: int) -> Array:
    layers = dice.randrange(400) if dice.rarely() else dice.randrange(7)
    cuts = sorted(dice.randint(0, length) for _ in range(layers + 1))
    if dice.often():
        cuts[0], cuts[-1] = 0, length if layers else 0
    return memory.put(np.array(cuts, dtype=np.int64))


def threads(dice: Dice) -> Any:
    return dice.choice((1, 1, 2, 3, 2**31 - 1, np.int64(2), True))


def weight(dice: Dice) -> Any:
    return dice.choice(
        (dice.gauss(0, 1), 0.0, -0.0, 1, 5e-324, 1e300, math.nan, -math.inf, np.float32(0.3), 2**40)
    )


def base(dice: Dice, memory: Memory, target: Array, name: str) -> Array | None:
    if dice.often():
        return None
    return change(dice, memory, target, name)


def change(dice: Dice, memory: Memory, target: Array, name: str) -> Array:
    """Draws the vector that is added to a target; sometimes the target itself."""
    if dice.rarely() and wide(name) == name:
        return target if dice.often() else target[:]
    return vector(dice, memory, target.size, name)


def valid(function: str, dice: Dice, memory: Memory) -> dict[str, Any]:
    if function == "train_perceptrons":
        return perceptrons(dice, memory)
    if function == "knapsacks":
        return knapsacks(dice, memory)
    if function in STACKS:
        return stacks(function, dice, memory)
    name = dice.choice(NAMES)
    length = size(dice)
    if function == "layer_stats":
        return {
            "delta": vector(dice, memory, length, name),
            "dtype": name,
            "offsets": offsets(dice, memory, length),
            "threads": threads(dice),
        }
    if function == "read_loop":
        return {"values": vector(dice, memory, length, "float32"), "threads": threads(dice)}
    if function == "layer_stats_list":
        return _list(dice, memory, name)
    target = memory.put(numbers(dice, length, wide(name)))
    if function == "accumulate_":
        return {
            "aggregate": target,
            "client": change(dice, memory, target, name),
            "base": base(dice, memory, target, name),
            "dtype": name,
            "weight": weight(dice),
            "offsets": offsets(dice, memory, length) if dice.often() else None,
            "threads": threads(dice),
        }
    if function == "aggregate":
        number = dice.randrange(40) if dice.rarely() and length < TILE else dice.randrange(7)
        return {
            "out": target,
            "clients": [change(dice, memory, target, name) for _ in range(number)],
            "weights": memory.put(np.array([weight(dice) for _ in range(number)], dtype=np.float64)),
            "base": base(dice, memory, target, name),
            "dtype": name,
            "offsets": offsets(dice, memory, length),
            "client_stats": dice.choice((False, True, 0, 1, np.bool_(True), "norms")),
            "threads": threads(dice),
        }
    at = offsets(dice, memory, length)
    flags = np.array([dice.choice((0, 0, 1, 1, 255)) for _ in range(at.size - 1)], dtype=np.uint8)
    return {
        "params": target,
        "delta": change(dice, memory, target, name),
        "offsets": at,
        "mask": memory.put(flags).view(np.bool_),
        "dtype": name,
        "lr": weight(dice),
        "threads": threads(dice),
    }


def _list(dice: Dice, memory: Memory, name: str) -> dict[str, Any]:
    number = dice.randrange(200) if dice.rarely() else dice.randrange(6)
    names = [name if dice.often() else dice.choice(NAMES) for _ in range(number)]
    if dice.often():
        names = [name] * number
    short = number > 10
    tensors = [
        vector(dice, memory, dice.randrange(20) if short else size(dice), names[i]) for i in range(number)
    ]
    return {
        "tensors": tuple(tensors) if dice.often() else tensors,
        "dtypes": name if names == [name] * number and dice.often() else names,
        "threads": threads(dice),
    }
