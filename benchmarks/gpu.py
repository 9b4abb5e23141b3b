"""The Triton kernels on one GPU: are they right, and how near to the memory's speed do they come.

    python benchmarks/gpu.py --out results/gpu      everything; some minutes and 40 GB of GPU memory
    python benchmarks/gpu.py --tune --out ...       launch constants of layer_stats as well
    python benchmarks/gpu.py --smoke                tiny sizes, correctness only; runs without a GPU

Every operation is first compared with the float64 reference on the same machine; an operation that is
wrong is not timed and the script exits with 1. Times are medians of interleaved runs between CUDA
events after a warm-up; a short device-side wait in front hides the host's part, which `host_ms` gives.

`bytes` is the least that must move: layer_stats reads every element once; accumulate_ reads three vectors
and writes one; masked_apply_ reads two and writes one, over the chosen layers. `share` is the time these
bytes take at the bandwidth measured in the same run (read for layer_stats, copy for the updates) over the
time taken; GB = 1e9 bytes. `error`, against float64, is the largest of |mean|/std over the layers
(layer_stats) or of an element (updates). `cold_ms` is the host's time for a first call, which builds and
uploads the tile table (kernels compiled before).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")

import triton  # noqa: E402

from fedtlu_fast.kernels import layer_stats as stats_kernels  # noqa: E402
from fedtlu_fast.kernels import tiles  # noqa: E402
from fedtlu_fast.ops import reference  # noqa: E402
from fedtlu_fast.ops import triton as ops  # noqa: E402
from fedtlu_fast.ops.moments import Moments  # noqa: E402

DEVICE = torch.device("cuda" if CUDA else "cpu")
RIVAL_BUDGET_S = 10.0
CHECKED_LAYERS = 1000


@dataclass
class Row:
    """One line of the results."""

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
    bytes: int
    gb_per_s: float
    share: float
    error: float


# --- cases ---------------------------------------------------------------------------------------


def gpt2(width: int, depth: int, vocabulary: int = 50257, context: int = 1024) -> list[int]:
    """Tensor sizes of GPT-2; 148 of them at width 768 and depth 12."""
    block = [width] * 2 + [3 * width**2, 3 * width, width**2, width] + [width] * 2
    block += [4 * width**2, 4 * width, 4 * width**2, width]
    return [vocabulary * width, context * width, *block * depth, width, width]


def llama(width: int, depth: int, inner: int, vocabulary: int = 32000) -> list[int]:
    """Tensor sizes of a Llama-2 model."""
    block = [width**2] * 4 + [width * inner] * 3 + [width] * 2
    return [vocabulary * width, *block * depth, width, vocabulary * width]


def cases(smoke: bool) -> dict[str, tuple[torch.dtype, list[int]]]:
    """Name -> dtype and layer sizes."""
    if smoke:
        return {
            "gpt2-tiny": (torch.float32, gpt2(16, 2, vocabulary=301, context=33)),
            "gpt2-tiny-bf16": (torch.bfloat16, gpt2(16, 2, vocabulary=301, context=33)),
            "many-small": (torch.float32, [7] * 20),
        }
    return {
        "gpt2-124m": (torch.float32, gpt2(768, 12)),
        "gpt2-124m-bf16": (torch.bfloat16, gpt2(768, 12)),
        # Two elements in front: no layer starts on a 16-byte boundary.
        "gpt2-124m-unaligned": (torch.float32, [3, *gpt2(768, 12)]),
        "gpt2-1.5b": (torch.float32, gpt2(1600, 48)),
        "llama-7b-bf16": (torch.bfloat16, llama(4096, 32, 11008)),
        "100k-layers": (torch.float32, [100] * 100_000),
    }


def offsets_of(sizes: list[int]) -> Tensor:
    return torch.tensor([0, *sizes]).cumsum(0)


def change(parameters: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """A change whose mean is a hundredth of its standard deviation."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.empty(parameters, dtype=dtype, device=DEVICE).normal_(1e-5, 1e-3, generator=generator)


# --- methods -------------------------------------------------------------------------------------

Stats = Callable[[list[Tensor]], tuple[Tensor, Tensor]]
"""The layers -> the norm and the standard deviation of each."""


def ratio(norms: Tensor, deviations: Tensor, counts: Tensor) -> Tensor:
    """|mean|/std from the two numbers of Eq. 1: score^2 = 1 + (mean/std)^2."""
    score = norms.double() / (counts.double().sqrt() * deviations.double())
    return (score.square() - 1).clamp(min=0).sqrt()


def moments_ratio(moments: Moments) -> Tensor:
    return moments.mean.abs() / (moments.m2 / moments.count).sqrt()


def torch_loop(dtype: torch.dtype) -> Stats:
    def run(views: list[Tensor]) -> tuple[Tensor, Tensor]:
        norms, deviations = [], []
        for view in views:
            wide = view.to(dtype)
            norms.append(wide.norm())
            deviations.append(wide.std(correction=0))
        return torch.stack(norms), torch.stack(deviations)

    return run


def foreach(views: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.stack(torch._foreach_norm(views)), torch.stack([view.std(correction=0) for view in views])


STATS_RIVALS = {
    "torch_loop_float32": torch_loop(torch.float32),
    "torch_loop_float64": torch_loop(torch.float64),
    "torch_foreach_norm_std": foreach,
}


# --- measuring -----------------------------------------------------------------------------------


def clock(run: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds on the device and on the host."""
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
    """Times of every method, taken in turns; a slow one stops after RIVAL_BUDGET_S, but not before 3."""
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
    """GB/s of reading and of copying 4 GB in this run, by torch's own kernels; the best of three readers."""
    source = torch.ones(2**30, device=DEVICE)
    target = torch.empty_like(source)
    readers = {
        "sum": lambda: source.sum(),
        "amax": lambda: source.amax(),
        "norm": lambda: torch.linalg.vector_norm(source),
    }
    times = interleave({"copy": lambda: target.copy_(source), **readers}, runs)
    median = {name: statistics.median(device for device, _ in taken) for name, taken in times.items()}
    size = source.numel() * source.element_size() / 1e6
    return {"read": size / min(median[name] for name in readers), "copy": 2 * size / median["copy"]}


def rows_of(times: dict[str, list[tuple[float, float]]], floor_gb_s: float, **common: object) -> list[Row]:
    rows = []
    errors: dict[str, float] = common.pop("errors")  # type: ignore[assignment]
    cold: float = common.pop("cold_ms")  # type: ignore[assignment]
    for name, taken in times.items():
        device = sorted(each for each, _ in taken)
        ms = statistics.median(device)
        speed = common["bytes"] / ms / 1e6  # type: ignore[operator]
        rows.append(
            Row(
                method=name,
                runs=len(taken),
                ms=ms,
                p20_ms=device[len(device) // 5],
                p80_ms=device[len(device) * 4 // 5],
                host_ms=statistics.median(host for _, host in taken),
                cold_ms=cold if name == "fedtlu" else float("nan"),
                gb_per_s=speed,
                share=speed / floor_gb_s,
                error=errors[name],
                **common,  # type: ignore[arg-type]
            )
        )
        print(
            f"  {name:24} {ms:10.3f} ms  {speed:8.0f} GB/s  {rows[-1].share:6.1%} of the floor"
            f"  host {rows[-1].host_ms:8.3f} ms  error {errors[name]:.1e}",
            flush=True,
        )
    return rows


# --- the operations ------------------------------------------------------------------------------


def checked(offsets: Tensor) -> list[int]:
    """The layers that are compared with the reference: all, or some thousand of many."""
    layers = offsets.numel() - 1
    return list(range(0, layers, max(1, layers // CHECKED_LAYERS)))


def stats_gate(delta: Tensor, offsets: Tensor) -> str | None:
    """What is wrong with layer_stats here; None when nothing is."""
    got = ops.layer_stats(delta, offsets)
    chosen = checked(offsets)
    views = [delta[offsets[layer] : offsets[layer + 1]] for layer in chosen]
    expected, index = reference.layer_stats_list(views), torch.tensor(chosen, device=DEVICE)
    picked = Moments(*(getattr(got, field.name)[index] for field in fields(got)))
    for name, found in (("layer_stats", picked), ("layer_stats_list", ops.layer_stats_list(views))):
        for column in ("count", "abs_max", "nonfinite"):
            if not torch.equal(getattr(found, column), getattr(expected, column)):
                return f"{name}: {column} differs"
        bound = 1e-8 + 1e-13 * moments_ratio(expected)
        if not ((moments_ratio(found) - moments_ratio(expected)).abs() <= bound).all():
            return f"{name}: mean/std is off by more than 1e-8"
        if not torch.allclose(found.m2, expected.m2, rtol=1e-10, atol=0):
            return f"{name}: m2 differs"
    again = ops.layer_stats(delta, offsets)
    if any(not torch.equal(getattr(again, field.name), getattr(got, field.name)) for field in fields(got)):
        return "layer_stats: two runs differ"
    delta[offsets[1] - 1], saved = float("nan"), delta[offsets[1] - 1].clone()
    spoilt = ops.layer_stats(delta, offsets)
    delta[offsets[1] - 1] = saved
    if not (spoilt.nonfinite[0] == 1 and spoilt.mean[0].isnan() and spoilt.nonfinite[1:].sum() == 0):
        return "layer_stats: a NaN is not counted in its layer alone"
    return None


def bench_stats(
    name: str, dtype: torch.dtype, sizes: list[int], args: argparse.Namespace
) -> list[Row] | None:
    offsets = offsets_of(sizes)
    delta = change(int(offsets[-1]), dtype)
    wrong = stats_gate(delta, offsets)
    print(f"layer_stats    {name}: {wrong or 'correct'}", flush=True)
    if wrong or args.smoke:
        return None if wrong else []
    views = list(delta.split(sizes))
    counts = torch.tensor(sizes, device=DEVICE)
    chosen = checked(offsets)
    index = torch.tensor(chosen, device=DEVICE)
    truth = moments_ratio(reference.layer_stats_list([views[layer] for layer in chosen]))

    def error(ratios: Tensor) -> float:
        return (ratios[index] - truth).abs().max().item()

    tiles._cache.clear()
    cold = clock(lambda: ops.layer_stats(delta, offsets))[1]
    methods: dict[str, Callable[[], object]] = {
        "fedtlu": lambda: ops.layer_stats(delta, offsets),
        "fedtlu_list": lambda: ops.layer_stats_list(views),
    }
    errors = {
        "fedtlu": error(moments_ratio(ops.layer_stats(delta, offsets))),
        "fedtlu_list": error(moments_ratio(ops.layer_stats_list(views))),
    }
    for rival, run in STATS_RIVALS.items():
        methods[rival] = lambda run=run: run(views)  # type: ignore[misc]
        errors[rival] = error(ratio(*run(views), counts))
    return rows_of(
        interleave(methods, args.runs),
        args.bandwidth["read"],
        op="layer_stats",
        case=name,
        dtype=str(dtype).removeprefix("torch."),
        layers=len(sizes),
        parameters=delta.numel(),
        bytes=delta.numel() * delta.element_size(),
        errors=errors,
        cold_ms=cold,
    )


def bench_accumulate(name: str, sizes: list[int], args: argparse.Namespace) -> list[Row] | None:
    size, weight = sum(sizes), 1 / 3
    aggregate, client, base = (change(size, torch.float32, seed) for seed in range(3))
    got, expected, rival = aggregate.clone(), aggregate, aggregate.clone()
    ops.accumulate_(got, client, base, weight)
    rival.add_(client - base, alpha=weight)
    for part in range(0, size, 2**27):  # in parts: the reference takes several float64 temporaries
        cut = slice(part, part + 2**27)
        reference.accumulate_(expected[cut], client[cut], base[cut], weight)
    right = torch.equal(got.view(torch.int32), expected.view(torch.int32))
    print(f"accumulate_    {name}: {'correct' if right else 'bits differ from the reference'}", flush=True)
    if not right or args.smoke:
        return [] if right else None
    methods: dict[str, Callable[[], object]] = {
        "fedtlu": lambda: ops.accumulate_(got, client, base, weight),
        "torch_float32": lambda: rival.add_(client - base, alpha=weight),
    }
    if size < 2**28:
        methods["torch_float64"] = lambda: reference.accumulate_(expected, client, base, weight)
    errors = {"fedtlu": 0.0, "torch_float64": 0.0, "torch_float32": (rival - expected).abs().max().item()}
    return rows_of(
        interleave(methods, args.runs),
        args.bandwidth["copy"],
        op="accumulate_",
        case=name,
        dtype="float32",
        layers=len(sizes),
        parameters=size,
        bytes=size * 16,
        errors=errors,
        cold_ms=float("nan"),
    )


def bench_apply(name: str, sizes: list[int], args: argparse.Namespace) -> list[Row] | None:
    offsets, lr = offsets_of(sizes), 0.7
    params, delta = (change(int(offsets[-1]), torch.float32, seed) for seed in range(2))
    mask = torch.arange(len(sizes)) % 3 == 0
    got, expected, rival = params.clone(), params, params.clone()
    chosen = [slice(int(offsets[layer]), int(offsets[layer + 1])) for layer in mask.nonzero().flatten()]

    def loop() -> None:
        for layer in chosen:
            rival[layer].add_(delta[layer], alpha=lr)

    ops.masked_apply_(got, delta, offsets, mask, lr)
    reference.masked_apply_(expected, delta, offsets, mask, lr)
    loop()
    right = torch.equal(got.view(torch.int32), expected.view(torch.int32))
    print(f"masked_apply_  {name}: {'correct' if right else 'bits differ from the reference'}", flush=True)
    if not right or args.smoke:
        return [] if right else None
    errors = {
        "fedtlu": 0.0,
        "torch_float64": 0.0,
        "torch_loop_float32": (rival - expected).abs().max().item(),
    }
    tiles._cache.clear()
    cold = clock(lambda: ops.masked_apply_(got, delta, offsets, mask, lr))[1]
    methods: dict[str, Callable[[], object]] = {
        "fedtlu": lambda: ops.masked_apply_(got, delta, offsets, mask, lr),
        "torch_loop_float32": loop,
        "torch_float64": lambda: reference.masked_apply_(expected, delta, offsets, mask, lr),
    }
    return rows_of(
        interleave(methods, args.runs),
        args.bandwidth["copy"],
        op="masked_apply_",
        case=name,
        dtype="float32",
        layers=len(sizes),
        parameters=int(offsets[-1]),
        bytes=12 * sum(layer.stop - layer.start for layer in chosen),
        errors=errors,
        cold_ms=cold,
    )


def tune(args: argparse.Namespace) -> list[dict[str, object]]:
    """layer_stats at every combination of its launch constants; the shipped ones are put back."""
    shipped = stats_kernels.NUM_WARPS, stats_kernels.ROWS, stats_kernels.ROW_BYTES, tiles.TILE_BYTES
    found: list[dict[str, object]] = []
    for name in ("gpt2-124m", "gpt2-124m-bf16", "100k-layers"):
        dtype, sizes = cases(smoke=False)[name]
        offsets = offsets_of(sizes)
        delta = change(int(offsets[-1]), dtype)
        for warps, rows, tile in itertools.product((2, 4, 8), (1, 2, 4), (2**15, 2**16, 2**17)):
            stats_kernels.NUM_WARPS, stats_kernels.ROWS, tiles.TILE_BYTES = warps, rows, tile
            stats_kernels.ROW_BYTES = 32 * warps * 16
            taken = interleave({"": partial(ops.layer_stats, delta, offsets)}, args.runs)[""]
            ms = statistics.median(device for device, _ in taken)
            found.append({"case": name, "num_warps": warps, "rows": rows, "tile_bytes": tile, "ms": ms})
        best = sorted((row for row in found if row["case"] == name), key=lambda row: float(str(row["ms"])))
        print(f"tune {name}: best {best[:3]}", flush=True)
    stats_kernels.NUM_WARPS, stats_kernels.ROWS, stats_kernels.ROW_BYTES, tiles.TILE_BYTES = shipped
    return found


# --- the run -------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    name = torch.cuda.get_device_name() if CUDA else "CPU (Triton's interpreter: correctness only)"
    capability = ".".join(map(str, torch.cuda.get_device_capability())) if CUDA else ""
    return {
        "device": name,
        "capability": capability,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": str(torch.version.cuda),
        "python": sys.version.split()[0],
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.csv")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, correctness only")
    parser.add_argument("--tune", action="store_true", help="also sweep the launch constants of layer_stats")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--runs", type=int, default=30)
    args = parser.parse_args()
    if not (CUDA or args.smoke):
        parser.error("no CUDA device here; --smoke checks correctness in Triton's interpreter")

    about = machine()
    print(" · ".join(f"{key} {value}" for key, value in about.items() if value), flush=True)
    args.bandwidth = {} if args.smoke else bandwidth(args.runs)
    print(" · ".join(f"{key} {value:.0f} GB/s" for key, value in args.bandwidth.items()), flush=True)

    rows: list[Row] = []
    red = False
    for name, (dtype, sizes) in cases(args.smoke).items():
        if args.only not in name:
            continue
        results = [bench_stats(name, dtype, sizes, args)]
        if dtype == torch.float32:
            results += [bench_accumulate(name, sizes, args), bench_apply(name, sizes, args)]
        for result in results:
            red |= result is None
            rows += result or []
        if CUDA:
            torch.cuda.empty_cache()
    tuned = tune(args) if args.tune and not args.smoke and not red else []

    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        report = {
            "machine": about,
            "bandwidth_gb_s": args.bandwidth,
            "rows": [asdict(row) for row in rows],
            "tune": tuned,
        }
        (args.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
        with (args.out / "gpu.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*about, *(field.name for field in fields(Row))])
            writer.writeheader()
            writer.writerows({**about, **asdict(row)} for row in rows)
    return int(red)


if __name__ == "__main__":
    sys.exit(main())
