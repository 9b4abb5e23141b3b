"""Times every method in turn, many times, in one process, and takes the median of each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from fedtlu_fast.profiling.bandwidth import LARGEST, Probes
from fedtlu_fast.profiling.cases import OURS, Case, Subject, Tell
from fedtlu_fast.profiling.operations import OPS
from fedtlu_fast.profiling.shapes import SHAPES, check_fits, fits, random_change

PATIENCE = 1.0
"""A method that has taken this many seconds skips the other turns, after its first `FEWEST`."""
FEWEST = 3


@dataclass(frozen=True)
class Row:
    """Holds the result of one method on one shape.

    Attributes:
        op: the operation.
        shape: the model.
        dtype: the dtype of the change.
        layers: L, the number of layers.
        parameters: P, the number of parameters.
        clients: K, for the operations that take several.
        method: ``fedtlu BACKEND`` or a rival.
        calls: how often it was timed; slow methods are timed less often.
        ms: median milliseconds.
        gb_per_s: bytes that must move, divided by the time; GB = 1e9 bytes.
        floor_ms: the time that these bytes take at the two bandwidths.
        read_gb_per_s: read bandwidth, measured between the calls of this op and shape.
        write_gb_per_s: write bandwidth, measured in the same way.
        share_of_floor: floor divided by time.
        speedup: over the fastest rival of the same op and shape; None for rivals.
        element_error: largest absolute error of an element; None where none is written.
        ratio_error: largest absolute error of a layer's |mean|/std; None if it computes no statistics.
        misranked: groups of like layers whose order differs from float64's; None if it computes no
            statistics.
        groups: the number of groups of like layers.
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
        """Tells whether it is one of our backends."""
        return self.method.startswith(OURS)


def interleaved(
    methods: Mapping[str, Callable[[], object]], device: str, repeats: int, patience: float = math.inf
) -> dict[str, list[float]]:
    """Measures the seconds of every call, all methods in turn; call each method once beforehand.

    Args:
        methods: the methods to time.
        device: the device to wait for.
        repeats: the number of turns.
        patience: seconds; a method that has taken more in total skips the turns after its first `FEWEST`.
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
    """Yields rows of every op, shape and method; accuracy is checked before anything is timed.

    Args:
        shapes: names of `SHAPES`.
        ops: some of `OPS`.
        backends: the backends to measure.
        device: the device to measure on.
        repeats: timed calls of each method.
        tell: called with a note about a rival that is left out, or an op that does not fit into the memory.
        clients: the K of the ops that take several clients.
        aggregated: the shapes to measure these ops with; None for all.

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
