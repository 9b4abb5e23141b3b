"""The share of a GPU's bandwidth that a kernel's instructions leave: computed, not measured."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from gpu_bounds.compiled import Code
from gpu_bounds.launches import Variant
from gpu_bounds.machine_code import Counts
from gpu_bounds.targets import ARCHITECTURES, Gpu

SPECIAL = 16
"""Reciprocals and narrow conversions per clock and processor, at least (the same guide's table)."""


_ADDITION = Counts(issued=4, kinds=Counter({"f64": 1, "convert": 1, "alu": 2}))
"""What `network.number_of` and the addition of its result take for one number."""


class Work(NamedTuple):
    """What a piece of a kernel does for one element of a vector.

    Attributes:
        counts: the piece's counts, per element.
        traffic: bytes that must move.
    """

    counts: Counts
    traffic: float


def of_loop(code: Code, variant: Variant) -> Work:
    """Returns one turn of the main loop; the whole path of a tile if the kernel has no loop."""
    if code.loop is None:
        return of_tile(code, variant)
    return Work(
        _per_element(code, code.loop, turns(code, code.loop, variant) * variant.step),
        variant.turn - variant.spared,
    )


def of_tile(code: Code, variant: Variant) -> Work:
    """Returns all of a whole tile: what comes before the loop, all its turns, reductions and results."""
    total = code.path
    if code.loop is not None:
        inside = turns(code, code.loop, variant)
        before = turns(code, code.path, variant) - inside
        whole = variant.turns or variant.elements // variant.step - before
        total = code.path.add(code.loop, whole / inside - 1)
    counts = _per_element(code, total, variant.elements)
    traffic = variant.read + variant.written - variant.spared
    # Where the compiler made predicates of the branches, the path has these additions.
    behind = variant.added if counts.kinds["convert"] < variant.added else 0
    return Work(counts.add(_ADDITION, behind), traffic)


def turns(code: Code, counts: Counts, variant: Variant) -> int:
    """Returns how many steps of the kernel's loop these counts hold; the compiler may unroll it."""
    widths = variant.widths(code.threads)
    moved = sum(size * times for size, times in (counts.loads + counts.stores).items() if size in widths)
    table = variant.table if 8 in widths else 0
    return max(1, int(moved // (variant.turn * variant.step / code.threads + table)))


def _per_element(code: Code, counts: Counts, elements: float) -> Counts:
    return Counts().add(counts, code.threads / elements)


def bound(work: Work, gpu: Gpu, strict: bool) -> tuple[float, str]:
    """Returns the share of the memory's bandwidth that the instructions leave, and what they are bound by.

    Args:
        work: what is done for one element.
        gpu: where.
        strict: whether to count the slots of all instructions, and float64 and its conversions together
            where one unit runs both; else every unit is taken to be as busy as its own operations make it,
            and all of them at the same time.
    """
    at = ARCHITECTURES[gpu.architecture]
    kinds, issued = work.counts.kinds, work.counts.issued
    slow = kinds["f64"] + kinds["convert"]
    clocks = {
        "f32": (kinds["f32"] + kinds["imad"]) / at.f32,
        "integer": max(kinds["imad"], kinds["alu"]) / at.alu,
        "f64": kinds["f64"] / at.f64,
        "conversions": kinds["convert"] / at.convert,
        "special functions": kinds["special"] / SPECIAL,
        "shared memory": kinds["shared"] / at.shuffle,
    }
    if strict and at.slow:
        clocks["f64 and conversions"] = slow / at.f64
    if strict:
        # AMD's vector unit is one: while it works on float64, it takes nothing else.
        waits = slow / at.f64 - slow / at.issue if at.backend == "hip" else 0
        clocks["issue"] = issued / at.issue + waits
    memory = work.traffic * gpu.processors * gpu.clock * 1e6 / (gpu.bandwidth * 1e9)
    busiest = max(clocks, key=clocks.__getitem__)
    return (1.0, "memory") if clocks[busiest] <= memory else (memory / clocks[busiest], busiest)
