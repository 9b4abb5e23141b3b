"""Fuzzes `train_perceptrons`: draws calls that it must accept or refuse, and checks the answers.

Its arithmetic is tested beside it (tests/clients/test_compiled.py). Here the loss of a client with one batch,
which no step has changed yet, is formed anew in float64, and with a learning rate of 0 nothing changes.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from fuzz.memory import Array, Dice, Memory, address
from fuzz.oracle import Expected, WrongError, decode, need, vector

NUMBERS = ("lr", "momentum", "weight_decay", "proximal", "clip")
KINDS = ("f", 4)


def valid(dice: Dice, memory: Memory) -> dict[str, Any]:
    """Draws a perceptron of one to three layers, samples, and clients with batches."""
    widths = [dice.randrange(1, 9) for _ in range(dice.randrange(2, 5))]
    layers: list[int] = []
    size = dice.randrange(3)
    for inputs, outputs in pairwise(widths):
        layers += [inputs, outputs, size, size + inputs * outputs]
        size += (inputs + 1) * outputs
    size += dice.randrange(3)
    held, batches = dice.randrange(1, 7), [dice.randrange(1, 4) for _ in range(dice.randrange(1, 7))]
    clients = sorted({0, len(batches), *(dice.randrange(len(batches)) for _ in range(3))})
    samples = sum(batches)

    def floats(length: int) -> Array:
        scale = dice.choice((0.5, 0.5, 0.5, 1e18, 1e-30))
        values = (dice.bulk.normal(size=length) * scale).astype(np.float32)
        placed = memory.put(values)
        while address(placed) % 4:
            placed = memory.put(values)
        return placed

    return {
        "params": floats(size),
        "layers": memory.put(np.array(layers)),
        "steps": _steps(dice),
        "features": floats(held * widths[0]),
        "labels": memory.put(dice.bulk.integers(widths[-1], size=samples)),
        "rows": memory.put(dice.bulk.integers(held, size=samples)),
        "starts": memory.put(np.cumsum([0, *batches])),
        "firsts": memory.put(np.array(clients)),
        "weights": memory.put(dice.bulk.normal(size=len(clients) - 1)),
        "change": floats(size),
        "own": floats(size) if dice.often() else None,
    }


def _steps(dice: Dice) -> dict[str, Any]:
    return {
        "adamw": dice.choice((False, True)),
        "lr": dice.choice((0.1, 0.1, 0.0, 1, 1e30, np.float32(0.3))),
        "momentum": dice.choice((0.0, 0.9)),
        "weight_decay": dice.choice((0.0, 0.1)),
        "proximal": dice.choice((0, 1.5)),
        "clip": dice.choice((0.0, 0.05, math.inf)),
    }


def answer(args: dict[str, Any]) -> Expected:
    """Returns a check of the call's answer; raises `UnfitError` if the call must be refused."""
    steps = args["steps"]
    need(isinstance(steps, dict) and "adamw" in steps, "steps")
    number = {name: float(steps[name]) for name in NUMBERS}
    need(all(value >= 0 for value in number.values()), "steps")
    params = decode(args["params"], "float32", "params")
    shapes = _layers(args["layers"], params.size)
    pool = decode(args["features"], "float32", "features")
    need(pool.size % shapes[0][0] == 0, "features")
    pool = pool.reshape(-1, shapes[0][0])
    rows, labels = _below(args["rows"], len(pool), "rows"), _below(args["labels"], shapes[-1][1], "labels")
    need(len(rows) == len(labels), "labels")
    starts = _cuts(args["starts"], len(rows), "starts")
    firsts = _cuts(args["firsts"], len(starts) - 1, "firsts")
    need(vector(args["weights"], "f", 8, "weights").size == len(firsts) - 1, "weights")
    inputs = [vector(args[name], *KINDS, name) for name in ("params", "features")]
    need(all(address(array) % 4 == 0 for array in inputs), "unaligned memory")
    targets = [vector(args[name], *KINDS, name) for name in ("change", "own") if args[name] is not None]
    need(args["change"] is not None, "change")
    for index, target in enumerate(targets):
        need(target.flags.writeable and target.size == params.size and address(target) % 4 == 0, "a target")
        for other in (*inputs, *targets[:index]):
            need(not _overlap(target, other), "a target")
    losses = [
        _loss(params, shapes, pool[rows[starts[a] : starts[b]]], labels[starts[a] : starts[b]])
        if b == a + 1
        else None
        for a, b in pairwise(firsts)
    ]

    def judge(given: Any, target: Array | None) -> None:
        got, finite = given
        if (got.shape, got.dtype, finite.shape, finite.dtype) != (
            (len(losses),), np.float64, (len(losses),), np.bool_,
        ):  # fmt: skip
            raise WrongError("losses or flags of another kind")
        if target is not None and number["lr"] == 0 and target.any():
            raise WrongError("a change by a learning rate of 0")
        for at, loss in enumerate(losses):
            if loss is not None and abs(loss) < 1e3 and not abs(got[at] - loss) <= 1e-3 * (1 + loss):
                raise WrongError(f"loss of client {at} is {got[at]!r}, not {loss!r}")

    return Expected(judge=judge)


def _layers(given: Any, size: int) -> list[tuple[int, int, int, int]]:
    numbers = _below(given, size + 1, "layers").tolist()
    need(bool(numbers) and len(numbers) % 4 == 0, "layers")
    layers = [tuple(numbers[at : at + 4]) for at in range(0, len(numbers), 4)]
    for inputs, outputs, weight, bias in layers:
        need(inputs > 0 and outputs > 0, "layers")
        need(weight + inputs * outputs <= size and bias + outputs <= size, "layers")
    need(all(before[1] == after[0] for before, after in pairwise(layers)), "layers")
    return layers


def _below(given: Any, limit: int, what: str) -> Array:
    plain = vector(given, "i", 8, what)
    need(not plain.size or (plain.min() >= 0 and plain.max() < limit), what)
    return plain


def _cuts(given: Any, length: int, what: str) -> list[int]:
    cuts: list[int] = _below(given, length + 1, what).tolist()
    need(len(cuts) > 1 and cuts[0] == 0 and cuts[-1] == length, what)
    need(all(before < after for before, after in pairwise(cuts)), what)
    return cuts


def _overlap(one: Array, other: Array) -> bool:
    first, second = address(one), address(other)
    return first < second + other.nbytes and second < first + one.nbytes


def _loss(params: Array, layers: list[tuple[int, int, int, int]], x: Array, labels: Array) -> float:
    """Computes the mean cross-entropy; NaN if float32 may hold other numbers than float64."""
    for at, (inputs, outputs, weight, bias) in enumerate(layers):
        matrix = params[weight : weight + inputs * outputs].reshape(outputs, inputs)
        x = x @ matrix.T + params[bias : bias + outputs]
        if at + 1 < len(layers):
            x = np.maximum(x, 0)
    if not np.abs(x).max() < 100:
        return math.nan
    shifted = x - x.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-logs[np.arange(len(labels)), labels].mean())
