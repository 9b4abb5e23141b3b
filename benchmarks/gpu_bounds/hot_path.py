"""Finds the path that a whole tile takes through a kernel's machine code, and the main loop on it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from gpu_bounds.machine_code import Counts, Instruction, count


class Graph:
    """The blocks of a kernel; each is named by the index of its first instruction.

    Attributes:
        ends: the index behind each block.
        ways: the blocks that may follow each block.
        back: the edges that lead back to a block on the way from the entry.
        order: a rank of each block that can be reached; every other edge leads to a higher rank.
    """

    def __init__(self, code: list[Instruction], labels: dict[str, int]) -> None:
        behind = (at + 1 for at, one in enumerate(code) if one.target or one.leaves or not one.falls)
        starts = [start for start in sorted({0, *labels.values(), *behind}) if start < len(code)]
        self.code = code
        self.ends = dict(pairwise([*starts, len(code)]))
        self.ways: dict[int, list[int]] = {}
        for start, end in self.ends.items():
            last = code[end - 1]
            jump = [labels[last.target]] if last.target in labels else []
            self.ways[start] = jump + ([end] if last.falls and end in self.ends else [])
        self.back = self._back_edges()
        self.order = self._order()

    def block(self, start: int) -> list[Instruction]:
        """Returns the instructions of a block."""
        return self.code[start : self.ends[start]]

    def forward(self, start: int) -> list[int]:
        """Returns the blocks that may follow without going back."""
        return [then for then in self.ways[start] if (start, then) not in self.back]

    def _back_edges(self) -> set[tuple[int, int]]:
        found: set[tuple[int, int]] = set()
        done: set[int] = set()
        stack = [(0, list(self.ways[0]))]
        active = {0}
        while stack:
            block, rest = stack[-1]
            if not rest:
                stack.pop()
                active.discard(block)
                done.add(block)
                continue
            then = rest.pop()
            if then in active:
                found.add((block, then))
            elif then not in done:
                active.add(then)
                stack.append((then, list(self.ways[then])))
        return found

    def loop(self, latch: int, head: int, path: tuple[int, ...]) -> tuple[int, ...]:
        """Returns one turn of the loop that this back-edge closes, as `path` goes; () if it has none."""
        before: dict[int, list[int]] = {}
        for start in self.order:
            for then in self.forward(start):
                before.setdefault(then, []).append(start)
        inside, todo = {head}, [latch]
        while todo:
            start = todo.pop()
            if start not in inside:
                inside.add(start)
                todo += before.get(start, [])
        turn = [start for start in path if start in inside]
        if head not in turn:
            return ()
        # The path may leave the loop before its end: the rest of the turn is the shortest way there.
        ways: dict[int, tuple[int, tuple[int, ...]]] = {turn[-1]: (0, ())}
        for start in sorted(inside, key=self.order.__getitem__):
            if start in ways:
                length, way = ways[start]
                for then in self.forward(start):
                    step = (length + self.ends[then] - then, (*way, then))
                    if then in inside and (then not in ways or step < ways[then]):
                        ways[then] = step
        return (*turn, *ways[latch][1]) if latch in ways else ()

    def _order(self) -> dict[int, int]:
        order: list[int] = []
        seen = {0}
        stack = [(0, self.forward(0))]
        while stack:
            block, rest = stack[-1]
            if rest:
                then = rest.pop()
                if then not in seen:
                    seen.add(then)
                    stack.append((then, self.forward(then)))
            else:
                stack.pop()
                order.append(block)
        return {block: at for at, block in enumerate(reversed(order))}


def hot_path(
    graph: Graph, amd: bool, needed: float, widths: frozenset[int], loops: bool, slowness: int
) -> tuple[Counts, Counts | None]:
    """Counts the path of a tile that lies wholly in its layer, and one turn of the main loop on it.

    It is the cheapest path from the entry to the exit that goes through each loop once and moves at least
    the bytes that such a tile needs, by the widest accesses that the variant allows: masks split the accesses
    of other tiles, and what is done for NaN, or for tiles that need float64, comes on top. What only some
    threads of a program do, such as writing the results, is left out.

    Args:
        graph: the kernel's code.
        amd: whether it is AMD's.
        needed: bytes that a thread loads and stores on the path; with a loop, in one turn of it.
        widths: bytes of the accesses to vectors; others are to tables.
        loops: whether the kernel has a loop over elements or clients.
        slowness: what a float64 operation costs, in slots of instructions.

    Returns:
        The counts of the path; and of the loop on it that moves the most bytes, None without `loops`.

    Raises:
        ValueError: There is no such path.
    """
    moved = {
        start: sum(size for one in graph.block(start) for size in (one.loaded, one.stored) if size in widths)
        for start in graph.ends
    }
    cost = {
        start: sum(slowness if {"f64", "convert"} & {*one.kinds} else 1 for one in graph.block(start))
        for start in graph.ends
    }
    reach: dict[int, dict[int, tuple[int, tuple[int, ...]]]] = {}  # block -> bytes -> cost, blocks
    for start in sorted(graph.order, key=graph.order.__getitem__, reverse=True):
        found: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())} if graph.block(start)[-1].leaves else {}
        for then in graph.forward(start):
            for size, way in reach[then].items():
                if size not in found or way < found[size]:
                    found[size] = way
        reach[start] = {
            size + moved[start]: (way[0] + cost[start], (start, *way[1])) for size, way in found.items()
        }

    def total(blocks: Iterable[int]) -> Counts:
        return count((one for start in blocks for one in graph.block(start)), amd)

    for least in sorted(
        {max(needed, size) for size in reach[0]}
    ):  # elements may be read before a loop as well
        enough = [way for size, way in reach[0].items() if size >= least]
        path = min(enough)[1] if enough else ()
        if path and not loops:
            return total(path), None
        cycles = [graph.loop(latch, head, path) for latch, head in graph.back]
        # The longest of equals: AMD's loops around one load, which make its address uniform, turn once.
        main = max(cycles, key=lambda blocks: (sum(map(moved.__getitem__, blocks)), len(blocks)), default=())
        if sum(map(moved.__getitem__, main)) >= needed:
            return total(path), total(main)
    raise ValueError(
        f"no path {'with a loop ' * loops}moves {needed:.0f} bytes by accesses of {sorted(widths)}"
    )
