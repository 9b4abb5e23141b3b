"""Computes, without a GPU, the share of each GPU's memory bandwidth that the Triton kernels can reach.

    python benchmarks/gpu_static.py                       all operations, variants and GPUs; some ten minutes
    python benchmarks/gpu_static.py --only layer_stats    some operations; `--arch sm_86` some architectures
    python benchmarks/gpu_static.py --csv FILE            a row for each variant and GPU

Every kernel is compiled as at its launch, with the sums that the device would choose (`--sums` names others),
and disassembled. Of the path that a whole tile takes, and of the main loop on it, the script counts bytes,
widths of loads, and operations by kind. A bound is the time that the bytes take at the memory's bandwidth
over the time of the busiest other resource, at most 1; the rates, and their sources, are in
`gpu_bounds/targets.py`. "loop" is the main loop, "tile" everything that a tile costs. "lenient" takes every
unit to be as busy as its own operations make it; "strict" also counts the slots of all instructions.

These are bounds, not measurements: latencies, caches and clocks under load are left out, and so is what only
some threads of a program do. A kernel cannot be faster; it can be slower.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections import Counter
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)  # the interpreter compiles nothing
sys.path.insert(0, str(Path(__file__).parent))  # `python -P` leaves it out

from gpu_bounds.bounds import bound, of_loop, of_tile
from gpu_bounds.compiled import Code, analyse, compile_launch
from gpu_bounds.launches import Variant, sums_of, unbounded, variants
from gpu_bounds.targets import ARCHITECTURES, GPUS, Architecture, Gpu

Row = dict[str, str | int | float]


def code_columns(code: Code, variant: Variant) -> Row:
    """Describes the main loop: what it does for one element of each vector that it reads."""
    counts, traffic = of_loop(code, variant)
    per_thread = code.loop or code.path
    kinds: Counter[str] = counts.kinds
    return {
        "registers": code.used.registers,
        "spills": code.used.spills,
        "shared_bytes": code.used.shared,
        "warps": code.used.warps,
        "occupancy": round(code.occupancy, 2),
        "loads": widths(per_thread.loads),
        "stores": widths(per_thread.stores),
        "bytes": traffic,
        "f64": round(kinds["f64"], 2),
        "conversions": round(kinds["convert"], 2),
        "f32": round(kinds["f32"], 2),
        "integer": round(kinds["alu"] + kinds["imad"], 2),
        "shuffles": round(kinds["shared"], 2),
        "instructions": round(counts.issued, 2),
    }


def widths(found: Counter[int]) -> str:
    """Shows how many accesses of each width a thread makes, the widest first."""
    return " ".join(f"{times}x{size}" for size, times in sorted(found.items(), reverse=True))


def bound_columns(code: Code, variant: Variant, gpu: Gpu) -> Row:
    """Returns the bounds of the loop and of a whole tile on one GPU, and what binds."""
    row: Row = {}
    for name, work in (("loop", of_loop(code, variant)), ("tile", of_tile(code, variant))):
        for rule, strict in (("lenient", False), ("strict", True)):
            share, busiest = bound(work, gpu, strict)
            row[f"{name}_{rule}"] = round(share, 3)
        row[f"{name}_by"] = busiest
    return row


def rows_of(architecture: Architecture, args: argparse.Namespace) -> list[Row]:
    """Compiles every variant for one architecture; prints a line for each, and returns a row for each GPU."""
    sums = args.sums if args.sums != "auto" else sums_of(architecture)
    gpus = [gpu for gpu in GPUS if gpu.architecture == architecture.name]
    print(f"\n{architecture.name} ({', '.join(gpu.name for gpu in gpus)}), sums in {sums}", flush=True)
    rows: list[Row] = []
    for variant in variants(architecture, sums):
        name = " ".join(filter(None, (variant.op, variant.dtype, variant.flags)))
        if not any(wanted in name for wanted in args.only) or (args.skip and args.skip in name):
            continue
        named: Row = {"op": variant.op, "dtype": variant.dtype, "variant": variant.flags, "sums": sums}
        try:
            code = analyse(variant, architecture)
        except Exception as error:  # a compiler may refuse a target: the table says so
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            print(f"  {name:<40} not computed: {reason}", flush=True)
            rows += [{**named, "gpu": gpu.name, "arch": architecture.name, "failed": reason} for gpu in gpus]
            continue
        columns = code_columns(code, variant)
        bounds = {gpu.name: bound_columns(code, variant, gpu) for gpu in gpus}
        print(f"  {name:<40} {shown(columns, bounds)}", flush=True)
        for gpu in gpus:
            rows.append({**named, "gpu": gpu.name, "arch": architecture.name, **columns, **bounds[gpu.name]})
    for op, name, launch in unbounded(architecture, sums):
        if any(wanted in f"{op} {name}" for wanted in args.only):
            used, _ = compile_launch(launch, architecture)
            print(f"  {name:<40} {used.registers} registers, {used.spills} spilled, {used.warps} warps")
            named = {"op": op, "variant": name, "sums": sums, "arch": architecture.name}
            rows.append({**named, "registers": used.registers, "spills": used.spills, "warps": used.warps})
    return rows


def shown(columns: Row, bounds: dict[str, Row]) -> str:
    """Makes the line of a variant."""
    each = " ".join(f"{key} {columns[key]:g}" for key in ("f64", "conversions", "f32", "integer", "shuffles"))
    limits = "; ".join(
        f"{gpu} {row['loop_strict']:.2f} ({row['loop_by']}), tile {row['tile_strict']:.2f} ({row['tile_by']})"
        for gpu, row in bounds.items()
    )
    machine = f"{columns['registers']} registers, {columns['spills']} spilled, {columns['warps']} warps"
    total = f"{columns['instructions']:g} in all"
    return f"{machine}; loads {columns['loads']}; per element {each}, {total}; {limits}"


SHOWN = ("layer_stats", "accumulate_ base stats", "masked_apply_", "aggregate", "aggregate clients_stats")
"""The variants of the documentation's table."""


def summary(rows: list[Row]) -> str:
    """Makes the documentation's table: strict bounds of the loop and, where it is lower, of a whole tile."""
    names = [f"{name} {dtype}" for name in SHOWN for dtype in ("fp32", "bf16")]
    lines = ["| GPU | " + " | ".join(f"`{name}`" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    cells: dict[str, dict[str, str]] = {gpu.name: {} for gpu in GPUS}
    for row in rows:
        if "gpu" in row and "failed" not in row:
            loop, tile = f"{row['loop_strict']:.2f}", f"{row['tile_strict']:.2f}"
            name = " ".join(str(part) for part in (row["op"], row["variant"], row["dtype"]) if part)
            cells[str(row["gpu"])][name] = loop if loop <= tile else f"{loop} ({tile})"
    for gpu, found in cells.items():
        lines.append(f"| {gpu} | " + " | ".join(found.get(name, "") for name in names) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", nargs="+", choices=[*ARCHITECTURES], default=[*ARCHITECTURES])
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names of variants")
    parser.add_argument("--skip", default="", help="a part of the names of variants to leave out")
    parser.add_argument("--sums", choices=("auto", "float64", "pairs"), default="auto")
    parser.add_argument("--csv", type=Path, help="a file for the rows")
    args = parser.parse_args()
    rows = [row for name in args.arch for row in rows_of(ARCHITECTURES[name], args)]
    if args.csv is not None:
        columns = list(dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row))
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    print(f"\n{summary(rows)}")
    failed = [row for row in rows if "failed" in row]
    bad = [row for row in rows if row.get("spills")]
    print(f"\n{len(rows)} rows; not computed: {len(failed)}; with spills: {len(bad)}")
    below = sum(1 for row in rows if float(row.get("loop_strict", 1)) < 0.9)
    print(f"main loops below 0.9 of the bandwidth (strict): {below}")
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
