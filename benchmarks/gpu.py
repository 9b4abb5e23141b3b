"""Checks the Triton kernels on one GPU, and compares their speed with the memory's.

    python benchmarks/gpu.py --out results/gpu      everything; at most 15 minutes (--minutes)
    python benchmarks/gpu.py --tune --out ...       launch constants as well
    python benchmarks/gpu.py --smoke                tiny sizes, correctness only; needs no GPU

Every operation is first compared with the float64 reference on the same machine; a wrong operation is not
timed, and the script exits with 1. Times are medians of interleaved runs between CUDA events after a warm-up;
a short wait on the device before each run hides the host's time, which `host_ms` gives.

`read_bytes` and `written_bytes` are the bytes that must at least move: layer_stats reads every element once;
accumulate_ reads three vectors and writes one, with or without statistics; aggregate reads every client and
writes one vector; masked_apply_ reads two and writes one, over the chosen layers; sorted_mean reads every
client and the base and writes one; squared_distances_from reads every client, base and centre. `floor_ms` is
the time these bytes take at the read and write bandwidths measured in the same run, and `share` is the floor
divided by the time; GB = 1e9 bytes. `error`, against float64, is the largest of |mean|/std over the layers
(layer_stats), of a distance, as a share of it, or of an element (the others). `cold_ms` is the host's time
for a first call, which builds and uploads the tables (kernels compiled before). Methods that end in
`_float64` and `_pairs` force how sums are kept; `fedtlu` alone is what the device decides. A case that does
not fit into the memory (60 GB hold all) or into the time is left out, with a note. Rows are written as soon
as their case is measured.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from functools import partial
from importlib import metadata
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from gpu_rows import CUDA
from gpu_rows.cases import aggregate_cases, cases, stack_cases
from gpu_rows.clients import bench_aggregate
from gpu_rows.measure import Row, bandwidth, report
from gpu_rows.operations import bench_accumulate, bench_apply, bench_stats
from gpu_rows.robust import bench_distances_from, bench_sorted_mean
from gpu_rows.tune import shrink, tune

Bench = Callable[[argparse.Namespace], list[Row] | None]


def machine() -> dict[str, str]:
    name = torch.cuda.get_device_name() if CUDA else "CPU (Triton's interpreter: correctness only)"
    capability = ".".join(map(str, torch.cuda.get_device_capability())) if CUDA else ""
    return {
        "device": name,
        "capability": capability,
        "torch": torch.__version__,
        "triton": metadata.version("triton"),
        "cuda": str(torch.version.cuda),
        "python": sys.version.split()[0],
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def benches(args: argparse.Namespace) -> Iterator[tuple[str, Bench]]:
    """Yields every case with its name."""
    for name, (dtype, sizes) in cases(args.smoke).items():
        if args.only not in name:
            continue
        yield f"layer_stats {name}", partial(bench_stats, name, dtype, sizes)
        if dtype == torch.float32:
            yield f"accumulate_ {name}", partial(bench_accumulate, name, sizes)
            yield f"masked_apply_ {name}", partial(bench_apply, name, sizes)
    for name, (dtype, sizes, counts) in aggregate_cases(args.smoke).items():
        for count in counts if args.only in name else ():
            yield f"aggregate {name}, {count} clients", partial(bench_aggregate, name, dtype, sizes, count)
    for name, (size, counts) in stack_cases(args.smoke).items():
        for count in counts if args.only in name else ():
            case = f"{name}, {count} clients"
            yield f"sorted_mean {case}", partial(bench_sorted_mean, name, size, count)
            yield f"squared_distances_from {case}", partial(bench_distances_from, name, size, count)


def write(folder: Path, about: dict[str, str], rows: list[Row], found: dict[str, object]) -> None:
    """Writes gpu.json and gpu.csv anew."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {"machine": about, "rows": [asdict(row) for row in rows], **found}
    (folder / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")
    with (folder / "gpu.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*about, *(field.name for field in fields(Row))])
        writer.writeheader()
        writer.writerows({**about, **asdict(row)} for row in rows)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.csv")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, correctness only")
    parser.add_argument("--tune", action="store_true", help="also sweep the launch constants")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out of the rivals")
    parser.add_argument("--only", default="", help="run only cases whose name contains this")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=14, help="begin no case after this time")
    args = parser.parse_args()
    if not (CUDA or args.smoke):
        parser.error("no CUDA device here; --smoke checks correctness in Triton's interpreter")
    return args


def main() -> int:
    args = parsed()
    begun = time.monotonic()
    about = machine()
    print(" · ".join(f"{key} {value}" for key, value in about.items() if value), flush=True)
    args.notes = []
    if not CUDA:
        shrink()
    args.bandwidth = {} if args.smoke else bandwidth(args.runs)
    print(" · ".join(f"{key} {value:.0f} GB/s" for key, value in args.bandwidth.items()), flush=True)

    rows: list[Row] = []
    found: dict[str, object] = {"bandwidth_gb_s": args.bandwidth, "notes": args.notes, "tune": []}
    red = False
    for name, bench in benches(args):
        if time.monotonic() - begun > 60 * args.minutes:
            report(args, f"{name}: left out, because {args.minutes:g} minutes are over")
            continue
        try:
            result = bench(args)
        except torch.OutOfMemoryError:
            report(args, f"{name}: left out, because the GPU's memory is too small")
            result = []
        red |= result is None
        rows += result or []
        if CUDA:
            torch.cuda.empty_cache()
        if args.out:
            write(args.out, about, rows, found)
    if args.tune and CUDA and not red:
        found["tune"] = tune(args)
        if args.out:
            write(args.out, about, rows, found)
    return int(red)


if __name__ == "__main__":
    sys.exit(main())
