"""Checks and times aggregate."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from fedtlu_fast.kernels import clients as client_tables
from fedtlu_fast.kernels import tiles
from fedtlu_fast.ops import reference
from fedtlu_fast.ops import triton as ops
from fedtlu_fast.ops.checks import TARGETS
from fedtlu_fast.ops.moments import Moments
from gpu_rows import DEVICE
from gpu_rows.cases import change, offsets_of
from gpu_rows.checks import moments_differ, sums_differ
from gpu_rows.measure import Row, clock, report, rows_of
from gpu_rows.sums import SUMS, both_ways, compare, kept_in


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
    for choice, client_stats in itertools.product(SUMS, (False, True)):
        out.fill_(float("nan"))
        with kept_in(choice):
            found, each = ops.aggregate(out, vectors, weights, None, offsets, client_stats)
        wrong = wrong or sums_differ(out, expected, choice) or moments_differ(found, truth)
        if isinstance(each, Moments) and isinstance(truths, Moments):
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
    errors: dict[str, float] = {}
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
        **both_ways("fedtlu", lambda: ops.aggregate(out, vectors, weights, None, offsets, False)),
        **both_ways("fedtlu_client_stats", lambda: ops.aggregate(out, vectors, weights, None, offsets, True)),
        "fedtlu_separate": separate,
        **rivals,
    }
    errors = dict.fromkeys(methods, 0.0) | errors
    traffic = (count * size * dtype.itemsize, size * out.element_size())
    case = (f"{name}, {count} clients", dtype, sizes)
    rows = rows_of("aggregate", case, traffic, methods, errors, cold, args)
    compare(rows)
    return rows
