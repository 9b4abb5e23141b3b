"""Measuring: every method in turn, over and over, in one process; medians of what each took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from fedtlu_fast.profiling.bandwidth import LARGEST, Probes
from fedtlu_fast.profiling.cases import OPS, OURS, Case, Subject, Tell
from fedtlu_fast.profiling.shapes import SHAPES, check_fits, fits, random_change

PATIENCE = 1.0
"""Seconds after which a method sits out the other turns, once it has had `FEWEST`."""
FEWEST = 3


@dataclass(frozen=True)
class Row:
    """One method on one shape.

    Attributes:
        op: operation.
        shape: model.
        dtype: of the change.
        layers: L.
        parameters: P.
        clients: K, for the operations that take several.
        method: ``fedtlu BACKEND`` or a rival.
        calls: how often it was timed; slow methods less often.
        ms: median milliseconds.
        gb_per_s: bytes that must at least move, over the time; GB = 1e9 bytes.
        floor_ms: what these bytes take at the two bandwidths.
        read_gb_per_s: read bandwidth, measured between the calls of this op and shape.
        write_gb_per_s: write bandwidth, likewise.
        share_of_floor: floor over time.
        speedup: over the fastest rival of the same op and shape; None for rivals.
        element_error: largest absolute error of an element; None where none is written.
        ratio_error: largest absolute error of a layer's |mean|/std; None for what finds no statistics.
        misranked: groups of like layers whose order differs from float64's; None likewise.
        groups: how many there are.
    """

    op: str
    shape: str
    dtype: str
    layers: int
    parameters: int
    clients: int | None
    method: str
    calls: int
    ms: float
    gb_per_s: float
    floor_ms: float
    read_gb_per_s: float
    write_gb_per_s: float
    share_of_floor: float
    speedup: float | None
    element_error: float | None
    ratio_error: float | None
    misranked: int | None
    groups: int

    @property
    def ours(self) -> bool:
        """Whether it is one of our backends."""
        return self.method.startswith(OURS)


def interleaved(
    methods: Mapping[str, Callable[[], object]], device: str, repeats: int, patience: float = math.inf
) -> dict[str, list[float]]:
    """Seconds of every call: all methods in turn, `repeats` times. They should have been called before.

    Args:
        methods: what to time.
        device: is waited for.
        repeats: turns.
        patience: seconds; a method that has taken more in all sits out the turns after its first `FEWEST`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(repeats):
        for name, method in methods.items():
            if turn >= FEWEST and sum(seconds[name]) > patience:
                continue
            _wait(device)
            start = time.perf_counter()
            method()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def profile(
    shapes: Sequence[str],
    ops: Sequence[str],
    backends: Sequence[str],
    device: str,
    repeats: int,
    tell: Tell,
    *,
    clients: Sequence[int] = (10,),
    aggregated: Collection[str] | None = None,
) -> Iterator[Row]:
    """Rows of every op, shape and method, the accuracy first: a number without it would mean nothing.

    Args:
        shapes: names of `SHAPES`.
        ops: some of `OPS`.
        backends: whose operations to measure.
        device: where.
        repeats: timed calls of each method.
        tell: takes notes about what is left out: a rival, or an op that does not fit into the memory.
        clients: the K of the ops that take several clients.
        aggregated: the shapes with which to measure those; None for all.

    Raises:
        InputError: a shape does not fit in the memory.
        BackendUnavailableError: a backend cannot run on this device.
    """
    layouts = {shape: SHAPES[shape].layout() for shape in shapes}
    for shape, layout in layouts.items():
        check_fits(layout, SHAPES[shape].dtype, device)
    for shape, layout in layouts.items():
        change = random_change(layout, SHAPES[shape].dtype, device)
        for name in ops:
            op = OPS[name]
            if op.takes_clients and aggregated is not None and shape not in aggregated:
                continue
            for number in clients if op.takes_clients else (0,):
                title = f"{name} on {shape}" + (f", {number} clients" if op.takes_clients else "")
                needed = op.bytes(layout.size, change.element_size(), number) + LARGEST
                if not fits(needed, device):
                    tell(f"{title}: left out, it takes {needed / 1e9:.1f} GB more memory")
                    continue
                subject = Subject(change, layout, backends, number, tell)
                yield from _rows(op.case(subject), name, shape, subject, repeats)


def _rows(case: Case, op: str, shape: str, subject: Subject, repeats: int) -> Iterator[Row]:
    device, layout = str(subject.change.device), subject.layout
    probes = Probes(case.traffic.total, device)
    times = interleaved(case.methods | probes.methods, device, repeats, PATIENCE)
    speed = probes.bandwidth({name: times[name] for name in probes.methods})
    floor = speed.floor(case.traffic)
    medians = {name: median(times[name]) for name in case.methods}
    rivals = [value for name, value in medians.items() if not name.startswith(OURS)]
    for name, seconds in medians.items():
        accuracy = case.accuracy[name]
        yield Row(
            op=op,
            shape=shape,
            dtype=str(subject.change.dtype).removeprefix("torch."),
            layers=len(layout.layers),
            parameters=layout.size,
            clients=subject.clients or None,
            method=name,
            calls=len(times[name]),
            ms=1e3 * seconds,
            gb_per_s=case.traffic.total / seconds / 1e9,
            floor_ms=1e3 * floor,
            read_gb_per_s=speed.read / 1e9,
            write_gb_per_s=speed.write / 1e9,
            share_of_floor=floor / seconds,
            speedup=min(rivals) / seconds if name.startswith(OURS) and rivals else None,
            element_error=accuracy.element_error,
            ratio_error=accuracy.ratio_error,
            misranked=accuracy.misranked,
            groups=len(layout.groups),
        )


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
