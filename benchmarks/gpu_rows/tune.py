"""Times launch constants around those that are shipped."""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable
from functools import partial

import torch

from fedtlu_fast.kernels import accumulate as accumulate_kernels
from fedtlu_fast.kernels import aggregate as aggregate_kernels
from fedtlu_fast.kernels import layer_stats as stats_kernels
from fedtlu_fast.kernels import tiles
from fedtlu_fast.ops import triton as ops
from fedtlu_fast.ops.checks import TARGETS
from gpu_rows.cases import cases, change, gpt2, offsets_of
from gpu_rows.measure import interleave


def sweep(
    case: str,
    run: Callable[[], object],
    choose: Callable[..., None],
    grid: dict[str, tuple[int, ...]],
    runs: int,
) -> list[dict[str, object]]:
    """Times every combination of launch constants; the caller restores them by a last call of `choose`."""
    found: list[dict[str, object]] = []
    for values in itertools.product(*grid.values()):
        choose(*values)
        ms = statistics.median(device for device, _ in interleave({"": run}, runs)[""])
        found.append({"case": case, **dict(zip(grid, values, strict=True)), "ms": ms})
    print(f"tune {case}: best {sorted(found, key=lambda row: float(str(row['ms'])))[:3]}", flush=True)
    return found


def shrink() -> None:
    """Takes small launch constants: the interpreter joins the pairs of every lane in Python."""
    stats_kernels.ROW_BYTES = 16
    accumulate_kernels.MOMENTS_BLOCK = 16
    aggregate_kernels.BLOCK = aggregate_kernels.BLOCK_WITH_CLIENTS = 16


def tune(args: argparse.Namespace) -> list[dict[str, object]]:
    """Tunes layer_stats, aggregate and accumulate_ with statistics; restores the shipped constants."""

    def for_stats(threads: int, rows: int, tile: int) -> None:
        stats_kernels.THREADS, stats_kernels.ROWS, tiles.TILE_BYTES = threads, rows, tile
        stats_kernels.ROW_BYTES = threads * 16

    def for_sum(block: int) -> None:
        aggregate_kernels.BLOCK = block

    def for_clients(block: int) -> None:
        aggregate_kernels.BLOCK_WITH_CLIENTS = block

    def for_accumulate(block: int) -> None:
        accumulate_kernels.MOMENTS_BLOCK = block

    found: list[dict[str, object]] = []
    grid: dict[str, tuple[int, ...]] = {
        "threads": (64, 128, 256),
        "rows": (1, 2, 4),
        "tile_bytes": (2**15, 2**16, 2**17),
    }
    shipped = stats_kernels.THREADS, stats_kernels.ROWS, tiles.TILE_BYTES
    for name in ("gpt2-124m", "gpt2-124m-bf16", "100k-layers"):
        dtype, sizes = cases(smoke=False)[name]
        offsets = offsets_of(sizes)
        run: Callable[[], object] = partial(ops.layer_stats, change(int(offsets[-1]), dtype), offsets)
        found += sweep(f"layer_stats {name}", run, for_stats, grid, args.runs)
        for_stats(*shipped)

    grid = {"block": (512, 1024, 2048)}  # the error of the sums is proven for 16 elements a thread
    single = accumulate_kernels.MOMENTS_BLOCK
    many = {False: aggregate_kernels.BLOCK, True: aggregate_kernels.BLOCK_WITH_CLIENTS}
    choose = {False: for_sum, True: for_clients}
    offsets, weights = offsets_of(gpt2(768, 12)), torch.full((10,), 0.1, dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        vectors = [change(int(offsets[-1]), dtype, seed) for seed in range(len(weights))]
        out = torch.zeros_like(vectors[0], dtype=TARGETS[dtype])
        for stats in (False, True):
            run = partial(ops.aggregate, out, vectors, weights, None, offsets, stats)
            found += sweep(f"aggregate {dtype}, client_stats {stats}", run, choose[stats], grid, args.runs)
            choose[stats](many[stats])
        run = partial(ops.accumulate_, out, vectors[0], vectors[1], 0.3, offsets)
        found += sweep(f"accumulate_ {dtype}", run, for_accumulate, grid, args.runs)
        for_accumulate(single)
    return found
