"""Checks the Triton kernels on one GPU, and compares their speed with the memory's.

    python benchmarks/gpu.py --out results/gpu      everything; some minutes and 60 GB of GPU memory
    python benchmarks/gpu.py --tune --out ...       launch constants as well
    python benchmarks/gpu.py --smoke                tiny sizes, correctness only; needs no GPU

Every operation is first compared with the float64 reference on the same machine; a wrong operation is not
timed, and the script exits with 1. Times are medians of interleaved runs between CUDA events after a warm-up;
a short wait on the device before each run hides the host's time, which `host_ms` gives.

`read_bytes` and `written_bytes` are the bytes that must at least move: layer_stats reads every element once;
accumulate_ reads three vectors and writes one, with or without statistics; aggregate reads every client and
writes one vector; masked_apply_ reads two and writes one, over the chosen layers. `floor_ms` is the time
these bytes take at the read and write bandwidths measured in the same run, and `share` is the floor divided
by the time; GB = 1e9 bytes. `error`, against float64, is the largest of |mean|/std over the layers
(layer_stats) or of an element (the others). `cold_ms` is the host's time for a first call, which builds and
uploads the tables (kernels compiled before).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import signal
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

from fedtlu_fast.kernels import accumulate as accumulate_kernels  # noqa: E402
from fedtlu_fast.kernels import aggregate as aggregate_kernels  # noqa: E402
from fedtlu_fast.kernels import clients as client_tables  # noqa: E402
from fedtlu_fast.kernels import layer_stats as stats_kernels  # noqa: E402
from fedtlu_fast.kernels import tiles  # noqa: E402
from fedtlu_fast.ops import reference  # noqa: E402
from fedtlu_fast.ops import triton as ops  # noqa: E402
from fedtlu_fast.ops.checks import TARGETS  # noqa: E402
from fedtlu_fast.ops.moments import Moments  # noqa: E402
from fedtlu_fast.profiling.shapes import SHAPES  # noqa: E402

DEVICE = torch.device("cuda" if CUDA else "cpu")
RIVAL_BUDGET_S = 10.0
CHECKED_LAYERS = 1000
# torch.compile unrolls the loop over the layers: limits on the layers and on the seconds of compiling.
COMPILED_LAYERS = 200
COMPILE_BUDGET_S = 75


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


# --- cases ---------------------------------------------------------------------------------------


def gpt2(width: int, depth: int, vocabulary: int = 50257, context: int = 1024) -> list[int]:
    """Returns the tensor sizes of GPT-2; 148 of them at width 768 and depth 12."""
    block = [width] * 2 + [3 * width**2, 3 * width, width**2, width] + [width] * 2
    block += [4 * width**2, 4 * width, 4 * width**2, width]
    return [vocabulary * width, context * width, *block * depth, width, width]


def llama(width: int, depth: int, inner: int, vocabulary: int = 32000) -> list[int]:
    """Returns the tensor sizes of a Llama-2 model."""
    block = [width**2] * 4 + [width * inner] * 3 + [width] * 2
    return [vocabulary * width, *block * depth, width, vocabulary * width]


def cases(smoke: bool) -> dict[str, tuple[torch.dtype, list[int]]]:
    """Maps names to dtype and layer sizes."""
    if smoke:
        return {
            "gpt2-tiny": (torch.float32, gpt2(16, 2, vocabulary=301, context=33)),
            "gpt2-tiny-bf16": (torch.bfloat16, gpt2(16, 2, vocabulary=301, context=33)),
            "many-small": (torch.float32, [7] * 20),
        }
    return {
        "gpt2-124m": (torch.float32, gpt2(768, 12)),
        "gpt2-124m-bf16": (torch.bfloat16, gpt2(768, 12)),
        # With two elements in front, no layer starts on a 16-byte boundary.
        "gpt2-124m-unaligned": (torch.float32, [3, *gpt2(768, 12)]),
        "gpt2-1.5b": (torch.float32, gpt2(1600, 48)),
        "llama-7b-bf16": (torch.bfloat16, llama(4096, 32, 11008)),
        "100k-layers": (torch.float32, [100] * 100_000),
    }


def aggregate_cases(smoke: bool) -> dict[str, tuple[torch.dtype, list[int], tuple[int, ...]]]:
    """Maps names to dtype, layer sizes and numbers of clients."""
    if smoke:
        tiny = gpt2(8, 1, vocabulary=31, context=9)
        return {
            "tiny": (torch.float32, tiny, (1, 3)),
            "tiny-bf16": (torch.bfloat16, [3, *tiny], (2,)),
        }
    transformer = [layer.numel for layer in SHAPES["transformer-6"].layout().layers]
    return {
        "transformer-6": (torch.float32, transformer, (10, 32, 100)),
        "gpt2-124m": (torch.float32, gpt2(768, 12), (10, 32, 100)),
        "gpt2-124m-bf16": (torch.bfloat16, gpt2(768, 12), (10, 32)),
    }


def offsets_of(sizes: list[int]) -> Tensor:
    return torch.tensor([0, *sizes]).cumsum(0)


def change(parameters: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Makes a change whose mean is a hundredth of its standard deviation."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.empty(parameters, dtype=dtype, device=DEVICE).normal_(1e-5, 1e-3, generator=generator)


# --- methods -------------------------------------------------------------------------------------

Stats = Callable[[list[Tensor]], tuple[Tensor, Tensor]]
"""The layers -> the norm and the standard deviation of each."""


def ratio(norms: Tensor, deviations: Tensor, counts: Tensor) -> Tensor:
    """Computes |mean|/std from the two numbers of Eq. 1: score^2 = 1 + (mean/std)^2."""
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


def std_mean(views: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Reads every layer once, the best that eager torch can do."""
    pairs = [torch.std_mean(view.float(), correction=0) for view in views]
    return torch.stack([mean for _, mean in pairs]), torch.stack([deviation for deviation, _ in pairs])


def ratio_of_means(means: Tensor, deviations: Tensor, counts: Tensor) -> Tensor:
    return means.double().abs() / deviations.double()


def compiled_std_mean(delta: Tensor, sizes: list[int]) -> Callable[[], tuple[Tensor, Tensor]] | str:
    """Returns `torch.compile` of `std_mean`, or the reason why it did not compile in time."""

    def too_late(*_: object) -> None:
        raise TimeoutError(f"not compiled in {COMPILE_BUDGET_S} s")

    torch._dynamo.reset()
    run = torch.compile(lambda vector: std_mean(list(vector.split(sizes))), dynamic=False)
    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(COMPILE_BUDGET_S)
    try:
        run(delta)
        torch.cuda.synchronize()
    except Exception as error:  # any error of the compiler is the result
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return lambda: run(delta)


STATS_RIVALS = {
    "torch_std_mean_loop": (std_mean, ratio_of_means),
    "torch_loop_float32": (torch_loop(torch.float32), ratio),
    "torch_loop_float64": (torch_loop(torch.float64), ratio),
    "torch_foreach_norm_std": (foreach, ratio),
}


# --- measuring -----------------------------------------------------------------------------------


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


# --- the operations ------------------------------------------------------------------------------


def report(args: argparse.Namespace, note: str) -> None:
    """Prints that a rival does not run here, which does not count as a failure."""
    print(f"  {note}", flush=True)
    args.notes.append(note)


def checked(offsets: Tensor) -> list[int]:
    """Returns the layers that are compared with the reference: all, or a few thousand if there are more."""
    layers = offsets.numel() - 1
    return list(range(0, layers, max(1, layers // CHECKED_LAYERS)))


def moments_differ(found: Moments, expected: Moments) -> str | None:
    """Returns the first difference beyond the tolerance; None if there is none."""
    for column in ("count", "abs_max", "nonfinite"):
        if not torch.equal(getattr(found, column), getattr(expected, column)):
            return f"{column} differs"
    truth = moments_ratio(expected)
    if not torch.allclose(moments_ratio(found), truth, rtol=1e-13, atol=1e-8, equal_nan=True):
        return "mean/std is off by more than 1e-8"
    if not torch.allclose(found.m2, expected.m2, rtol=1e-10, atol=0):
        return "m2 differs"
    return None


def same_bits(got: Tensor, expected: Tensor) -> bool:
    return torch.equal(got.view(torch.int32), expected.view(torch.int32))


def stats_gate(delta: Tensor, offsets: Tensor) -> str | None:
    """Returns the first error of layer_stats here; None if there is none."""
    got = ops.layer_stats(delta, offsets)
    views = [delta[offsets[layer] : offsets[layer + 1]] for layer in checked(offsets)]
    some, expected = picked(got, delta, offsets)
    for name, found in (("layer_stats", some), ("layer_stats_list", ops.layer_stats_list(views))):
        wrong = moments_differ(found, expected)
        if wrong:
            return f"{name}: {wrong}"
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
    for rival, (run, to_ratio) in STATS_RIVALS.items():
        methods[rival] = partial(run, views)
        errors[rival] = error(to_ratio(*run(views), counts))
    if not args.no_compile and len(sizes) <= COMPILED_LAYERS:
        compiled = compiled_std_mean(delta, sizes)
        if isinstance(compiled, str):
            report(args, f"torch_compile of layer_stats, {name}: {compiled}")
        else:
            methods["torch_compile"] = compiled
            errors["torch_compile"] = error(ratio_of_means(*compiled(), counts))
    read = delta.numel() * delta.element_size()
    return rows_of("layer_stats", (name, dtype, sizes), (read, 0), methods, errors, cold, args)


def bench_accumulate(name: str, sizes: list[int], args: argparse.Namespace) -> list[Row] | None:
    """Times accumulate_ without statistics, and with them in one pass or in two (fedtlu_two_passes)."""
    offsets, weight = offsets_of(sizes), 1 / 3
    size = int(offsets[-1])
    aggregate, client, base = (change(size, torch.float32, seed) for seed in range(3))
    got, fused, expected = aggregate.clone(), aggregate.clone(), aggregate
    rival = aggregate.clone()
    ops.accumulate_(got, client, base, weight)
    moments = ops.accumulate_(fused, client, base, weight, offsets)
    rival.add_(client - base, alpha=weight)
    for part in range(0, size, 2**27):  # in parts, because the reference makes several float64 temporaries
        cut = slice(part, part + 2**27)
        reference.accumulate_(expected[cut], client[cut], base[cut], weight)
    wrong = None if same_bits(got, expected) and same_bits(fused, expected) else "bits differ"
    wrong = wrong or moments_differ(*picked(moments, expected, offsets))
    print(f"accumulate_    {name}: {wrong or 'correct'}", flush=True)
    if wrong or args.smoke:
        return None if wrong else []
    errors = dict.fromkeys(("fedtlu", "fedtlu_stats", "fedtlu_two_passes", "torch_float64"), 0.0)
    errors["torch_float32"] = (rival - expected).abs().max().item()

    def two_passes() -> None:
        ops.accumulate_(got, client, base, weight)
        ops.layer_stats(got, offsets)

    methods: dict[str, Callable[[], object]] = {
        "fedtlu": lambda: ops.accumulate_(got, client, base, weight),
        "fedtlu_stats": lambda: ops.accumulate_(fused, client, base, weight, offsets),
        "fedtlu_two_passes": two_passes,
        "torch_float32": lambda: rival.add_(client - base, alpha=weight),
    }
    if size < 2**28:
        methods["torch_float64"] = lambda: reference.accumulate_(expected, client, base, weight)
    case = (name, torch.float32, sizes)
    return rows_of("accumulate_", case, (12 * size, 4 * size), methods, errors, float("nan"), args)


def picked(moments: Moments | None, vector: Tensor, offsets: Tensor) -> tuple[Moments, Moments]:
    """Returns the moments of the compared layers, and the reference's moments of the same layers."""
    assert moments is not None
    chosen = checked(offsets)
    expected = reference.layer_stats_list([vector[offsets[layer] : offsets[layer + 1]] for layer in chosen])
    index = torch.tensor(chosen, device=DEVICE)
    return Moments(*(getattr(moments, field.name)[index] for field in fields(moments))), expected


def bench_aggregate(
    name: str, dtype: torch.dtype, sizes: list[int], count: int, args: argparse.Namespace
) -> list[Row] | None:
    """Times the sum and the moments of its layers, without and with the moments of the clients."""
    offsets = offsets_of(sizes)
    size = int(offsets[-1])
    # One matrix for the rivals; its rows start on 16-byte boundaries.
    stacked = torch.empty(count, -(-size // 8) * 8, dtype=dtype, device=DEVICE)[:, :size]
    for seed, row in enumerate(stacked):
        row.copy_(change(size, dtype, seed))
    vectors = list(stacked)
    weights = torch.arange(1, count + 1, dtype=torch.float64)
    weights /= weights.sum()
    narrow = weights.to(DEVICE, dtype)
    out, expected = (torch.empty(size, dtype=TARGETS[dtype], device=DEVICE) for _ in range(2))
    truth, truths = reference.aggregate(expected, vectors, weights, None, offsets, True)
    wrong = None
    for client_stats in (False, True):
        out.fill_(float("nan"))
        found, each = ops.aggregate(out, vectors, weights, None, offsets, client_stats)
        wrong = wrong or (None if same_bits(out, expected) else "bits differ") or moments_differ(found, truth)
        if each is not None and truths is not None:
            wrong = wrong or moments_differ(each, truths)
    print(f"aggregate      {name}, {count} clients: {wrong or 'correct'}", flush=True)
    if wrong or args.smoke:
        return None if wrong else []

    running = torch.empty_like(out)

    def separate() -> None:
        running.zero_()
        for vector, weight in zip(vectors, weights.tolist(), strict=True):
            ops.accumulate_(running, vector, None, weight)
            ops.layer_stats(vector, offsets)
        ops.layer_stats(running, offsets)

    def add_loop() -> Tensor:
        running.zero_()
        for vector, weight in zip(vectors, weights.tolist(), strict=True):
            running.add_(vector, alpha=weight)
        return running

    rivals: dict[str, Callable[[], Tensor]] = {
        "torch_mv": lambda: torch.mv(stacked.T, narrow),
        "torch_einsum": lambda: torch.einsum("k,kp->p", narrow, stacked),
        "torch_add_loop": add_loop,
    }
    errors = dict.fromkeys(("fedtlu", "fedtlu_client_stats", "fedtlu_separate"), 0.0)
    for rival, run in tuple(rivals.items()):
        try:
            errors[rival] = (run() - expected).abs().max().item()
        except RuntimeError as error:  # cuBLAS does not take every shape
            del rivals[rival]
            report(args, f"{rival} of aggregate, {name}, {count} clients: {str(error)[:300]}")
    tiles._cache.clear()
    client_tables._cache.clear()
    cold = clock(lambda: ops.aggregate(out, vectors, weights, None, offsets, False))[1]
    methods: dict[str, Callable[[], object]] = {
        "fedtlu": lambda: ops.aggregate(out, vectors, weights, None, offsets, False),
        "fedtlu_client_stats": lambda: ops.aggregate(out, vectors, weights, None, offsets, True),
        "fedtlu_separate": separate,
        **rivals,
    }
    traffic = (count * size * dtype.itemsize, size * out.element_size())
    return rows_of(
        "aggregate", (f"{name}, {count} clients", dtype, sizes), traffic, methods, errors, cold, args
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
    right = same_bits(got, expected)
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
    touched = sum(layer.stop - layer.start for layer in chosen)
    case = (name, torch.float32, sizes)
    return rows_of("masked_apply_", case, (8 * touched, 4 * touched), methods, errors, cold, args)


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


def tune(args: argparse.Namespace) -> list[dict[str, object]]:
    """Tunes layer_stats, aggregate and accumulate_ with statistics; restores the shipped constants."""

    def for_stats(warps: int, rows: int, tile: int) -> None:
        stats_kernels.NUM_WARPS, stats_kernels.ROWS, tiles.TILE_BYTES = warps, rows, tile
        stats_kernels.ROW_BYTES = 32 * warps * 16

    def for_aggregate(block: int, warps: int) -> None:
        aggregate_kernels.BLOCK, aggregate_kernels.NUM_WARPS = block, warps

    def for_accumulate(block: int, warps: int) -> None:
        accumulate_kernels.MOMENTS_BLOCK, accumulate_kernels.NUM_WARPS = block, warps

    found: list[dict[str, object]] = []
    grid: dict[str, tuple[int, ...]] = {
        "num_warps": (2, 4, 8),
        "rows": (1, 2, 4),
        "tile_bytes": (2**15, 2**16, 2**17),
    }
    shipped = stats_kernels.NUM_WARPS, stats_kernels.ROWS, tiles.TILE_BYTES
    for name in ("gpt2-124m", "gpt2-124m-bf16", "100k-layers"):
        dtype, sizes = cases(smoke=False)[name]
        offsets = offsets_of(sizes)
        run: Callable[[], object] = partial(ops.layer_stats, change(int(offsets[-1]), dtype), offsets)
        found += sweep(f"layer_stats {name}", run, for_stats, grid, args.runs)
        for_stats(*shipped)

    grid = {"block": (512, 1024, 2048, 4096), "num_warps": (4, 8)}
    single = accumulate_kernels.MOMENTS_BLOCK, accumulate_kernels.NUM_WARPS
    many = aggregate_kernels.BLOCK, aggregate_kernels.NUM_WARPS
    offsets, weights = offsets_of(gpt2(768, 12)), torch.full((10,), 0.1, dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        vectors = [change(int(offsets[-1]), dtype, seed) for seed in range(len(weights))]
        out = torch.zeros_like(vectors[0], dtype=TARGETS[dtype])
        for stats in (False, True):
            run = partial(ops.aggregate, out, vectors, weights, None, offsets, stats)
            found += sweep(f"aggregate {dtype}, client_stats {stats}", run, for_aggregate, grid, args.runs)
            for_aggregate(*many)
        run = partial(ops.accumulate_, out, vectors[0], vectors[1], 0.3, offsets)
        found += sweep(f"accumulate_ {dtype}", run, for_accumulate, grid, args.runs)
        for_accumulate(*single)
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
    parser.add_argument("--tune", action="store_true", help="also sweep the launch constants")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out of the rivals")
    parser.add_argument("--only", default="", help="run only cases whose name contains this")
    parser.add_argument("--runs", type=int, default=30)
    args = parser.parse_args()
    if not (CUDA or args.smoke):
        parser.error("no CUDA device here; --smoke checks correctness in Triton's interpreter")

    about = machine()
    print(" · ".join(f"{key} {value}" for key, value in about.items() if value), flush=True)
    args.notes = []
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
    for name, (dtype, sizes, counts) in aggregate_cases(args.smoke).items():
        for count in counts if args.only in name else ():
            result = bench_aggregate(name, dtype, sizes, count, args)
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
            "notes": args.notes,
        }
        (args.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
        with (args.out / "gpu.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*about, *(field.name for field in fields(Row))])
            writer.writeheader()
            writer.writerows({**about, **asdict(row)} for row in rows)
    return int(red)


if __name__ == "__main__":
    sys.exit(main())
