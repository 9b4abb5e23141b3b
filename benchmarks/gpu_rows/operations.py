"""Checks and times layer_stats, accumulate_ and masked_apply_."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fedtlu_fast.kernels import tiles
from fedtlu_fast.ops import reference
from fedtlu_fast.ops import triton as ops
from gpu_rows import DEVICE
from gpu_rows.cases import change, offsets_of
from gpu_rows.checks import checked, moments_differ, picked, stats_gate, sums_differ
from gpu_rows.measure import Row, clock, report, rows_of
from gpu_rows.rivals import STATS_RIVALS, compiled_std_mean, moments_ratio, ratio_of_means
from gpu_rows.sums import SUMS, both_ways, compare, kept_in

# torch.compile unrolls the loop over the layers: a limit on the layers.
COMPILED_LAYERS = 200


def bench_stats(
    name: str, dtype: torch.dtype, sizes: list[int], args: argparse.Namespace
) -> list[Row] | None:
    offsets = offsets_of(sizes)
    delta = change(int(offsets[-1]), dtype)
    wrong = None
    for choice in SUMS:
        with kept_in(choice):
            wrong = wrong or stats_gate(delta, offsets)
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
        **both_ways("fedtlu", lambda: ops.layer_stats(delta, offsets)),
    }
    errors = {
        "fedtlu": error(moments_ratio(ops.layer_stats(delta, offsets))),
        "fedtlu_list": error(moments_ratio(ops.layer_stats_list(views))),
    }
    for choice in SUMS:
        with kept_in(choice):
            errors[f"fedtlu_{choice}"] = error(moments_ratio(ops.layer_stats(delta, offsets)))
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
    rows = rows_of("layer_stats", (name, dtype, sizes), (read, 0), methods, errors, cold, args)
    compare(rows)
    return rows


def bench_accumulate(name: str, sizes: list[int], args: argparse.Namespace) -> list[Row] | None:
    """Times accumulate_ without statistics, and with them in one pass or in two (fedtlu_two_passes)."""
    offsets, weight = offsets_of(sizes), 1 / 3
    size = int(offsets[-1])
    aggregate, client, base = (change(size, torch.float32, seed) for seed in range(3))
    start, got, fused, expected = aggregate.clone(), aggregate.clone(), aggregate.clone(), aggregate
    rival = aggregate.clone()
    rival.add_(client - base, alpha=weight)
    for part in range(0, size, 2**27):  # in parts, because the reference makes several float64 temporaries
        cut = slice(part, part + 2**27)
        reference.accumulate_(expected[cut], client[cut], base[cut], weight)
    wrong = None
    for choice in SUMS:
        got.copy_(start)
        fused.copy_(start)
        with kept_in(choice):
            ops.accumulate_(got, client, base, weight)
            moments = ops.accumulate_(fused, client, base, weight, offsets)
        wrong = wrong or sums_differ(got, expected, choice) or sums_differ(fused, expected, choice)
        wrong = wrong or moments_differ(*picked(moments, expected, offsets))
    print(f"accumulate_    {name}: {wrong or 'correct'}", flush=True)
    if wrong or args.smoke:
        return None if wrong else []
    error = (rival - expected).abs().max().item()

    def two_passes() -> None:
        ops.accumulate_(got, client, base, weight)
        ops.layer_stats(got, offsets)

    methods: dict[str, Callable[[], object]] = {
        "fedtlu": lambda: ops.accumulate_(got, client, base, weight),
        "fedtlu_stats": lambda: ops.accumulate_(fused, client, base, weight, offsets),
        "fedtlu_two_passes": two_passes,
        **both_ways("fedtlu", lambda: ops.accumulate_(got, client, base, weight)),
        **both_ways("fedtlu_stats", lambda: ops.accumulate_(fused, client, base, weight, offsets)),
        "torch_float32": lambda: rival.add_(client - base, alpha=weight),
    }
    if size < 2**28:
        methods["torch_float64"] = lambda: reference.accumulate_(expected, client, base, weight)
    errors = dict.fromkeys(methods, 0.0) | {"torch_float32": error}
    case = (name, torch.float32, sizes)
    rows = rows_of("accumulate_", case, (12 * size, 4 * size), methods, errors, float("nan"), args)
    compare(rows)
    return rows


def bench_apply(name: str, sizes: list[int], args: argparse.Namespace) -> list[Row] | None:
    offsets, lr = offsets_of(sizes), 0.7
    params, delta = (change(int(offsets[-1]), torch.float32, seed) for seed in range(2))
    mask = torch.arange(len(sizes)) % 3 == 0
    start, got, expected, rival = params.clone(), params.clone(), params, params.clone()
    chosen = [slice(int(offsets[layer]), int(offsets[layer + 1])) for layer in mask.nonzero().flatten()]

    def loop() -> None:
        for layer in chosen:
            rival[layer].add_(delta[layer], alpha=lr)

    reference.masked_apply_(expected, delta, offsets, mask, lr)
    loop()
    wrong = None
    for choice in SUMS:
        got.copy_(start)
        with kept_in(choice):
            ops.masked_apply_(got, delta, offsets, mask, lr)
        wrong = wrong or sums_differ(got, expected, choice)
    print(f"masked_apply_  {name}: {wrong or 'correct'}", flush=True)
    if wrong or args.smoke:
        return None if wrong else []
    error = (rival - expected).abs().max().item()
    tiles._cache.clear()
    cold = clock(lambda: ops.masked_apply_(got, delta, offsets, mask, lr))[1]
    methods: dict[str, Callable[[], object]] = {
        "fedtlu": lambda: ops.masked_apply_(got, delta, offsets, mask, lr),
        **both_ways("fedtlu", lambda: ops.masked_apply_(got, delta, offsets, mask, lr)),
        "torch_loop_float32": loop,
        "torch_float64": lambda: reference.masked_apply_(expected, delta, offsets, mask, lr),
    }
    touched = sum(layer.stop - layer.start for layer in chosen)
    errors = dict.fromkeys(methods, 0.0) | {"torch_loop_float32": error}
    case = (name, torch.float32, sizes)
    rows = rows_of("masked_apply_", case, (8 * touched, 4 * touched), methods, errors, cold, args)
    compare(rows)
    return rows
