"""Times methods in turns, and makes rows of their times."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from gpu_rows import DEVICE

RIVAL_BUDGET_S = 10.0


@dataclass
class Row:
    """Holds a row of the results."""

    op: str
    case: str
    dtype: str
    layers: int
    parameters: int
    method: str
    runs: int
    ms: float
    p20_ms: float
    p80_ms: float
    host_ms: float
    cold_ms: float
    read_bytes: int
    written_bytes: int
    gb_per_s: float
    floor_ms: float
    share: float
    error: float


def clock(run: Callable[[], object]) -> tuple[float, float]:
    """Measures milliseconds on the device and on the host."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000)  # cycles; about half a millisecond, while the host enqueues
    begun = time.perf_counter()
    start.record()
    run()
    end.record()
    host = time.perf_counter() - begun
    torch.cuda.synchronize()
    return start.elapsed_time(end), host * 1e3


def interleave(methods: dict[str, Callable[[], object]], runs: int) -> dict[str, list[tuple[float, float]]]:
    """Times every method, in turns; a slow one stops after RIVAL_BUDGET_S seconds and 3 runs."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for run in methods.values():  # the warm-up
        if clock(run)[0] < 1e3:
            for _ in range(3):
                run()
    for _ in range(runs):
        for name, run in methods.items():
            spent = sum(device for device, _ in times[name]) / 1e3
            if len(times[name]) < 3 or spent < RIVAL_BUDGET_S:
                times[name].append(clock(run))
    return times


def bandwidth(runs: int) -> dict[str, float]:
    """Measures GB/s of reading, writing and copying 4 GB, by torch's kernels; the best of three readers."""
    source = torch.ones(2**30, device=DEVICE)
    target = torch.empty_like(source)
    work: dict[str, Callable[[], object]] = {
        "copy": lambda: target.copy_(source),
        "write": lambda: target.fill_(1.0),
        "sum": source.sum,
        "amax": source.amax,
        "norm": lambda: torch.linalg.vector_norm(source),
    }
    times = interleave(work, runs)
    speed = {
        name: source.numel() * 4 / statistics.median(device for device, _ in taken) / 1e6
        for name, taken in times.items()
    }
    best = max(speed[name] for name in ("sum", "amax", "norm"))
    return {"read": best, "write": speed["write"], "copy": 2 * speed["copy"]}


def rows_of(
    op: str,
    case: tuple[str, torch.dtype, list[int]],
    traffic: tuple[int, int],
    methods: dict[str, Callable[[], object]],
    errors: dict[str, float],
    cold_ms: float,
    args: argparse.Namespace,
) -> list[Row]:
    """Times the methods on a case (name, dtype, layer sizes) that reads and writes the given bytes."""
    (name, dtype, sizes), (read, written) = case, traffic
    floor = (read / args.bandwidth["read"] + written / args.bandwidth["write"]) / 1e6
    rows = []
    for method, taken in interleave(methods, args.runs).items():
        device = sorted(each for each, _ in taken)
        ms = statistics.median(device)
        row = Row(
            op=op,
            case=name,
            dtype=str(dtype).removeprefix("torch."),
            layers=len(sizes),
            parameters=sum(sizes),
            method=method,
            runs=len(taken),
            ms=ms,
            p20_ms=device[len(device) // 5],
            p80_ms=device[len(device) * 4 // 5],
            host_ms=statistics.median(host for _, host in taken),
            cold_ms=cold_ms if method == "fedtlu" else float("nan"),
            read_bytes=read,
            written_bytes=written,
            gb_per_s=(read + written) / ms / 1e6,
            floor_ms=floor,
            share=floor / ms,
            error=errors[method],
        )
        rows.append(row)
        print(
            f"  {method:24} {ms:10.3f} ms  {row.gb_per_s:8.0f} GB/s  {row.share:6.1%} of the floor"
            f"  host {row.host_ms:8.3f} ms  error {row.error:.1e}",
            flush=True,
        )
    return rows


def report(args: argparse.Namespace, note: str) -> None:
    """Prints that a rival does not run here, which does not count as a failure."""
    print(f"  {note}", flush=True)
    args.notes.append(note)
