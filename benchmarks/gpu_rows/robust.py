"""Checks and times what robust rules need: sorted_mean and squared_distances_from."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch

from fedtlu_fast.ops import reference
from fedtlu_fast.ops import triton as ops
from gpu_rows import DEVICE
from gpu_rows.cases import change
from gpu_rows.checks import same_bits
from gpu_rows.measure import Row, rows_of
from gpu_rows.sums import SUMS, both_ways, compare, kept_in

RELATIVE = {"float64": 1e-13, "pairs": 1e-12}
"""How far a squared distance may be from the reference's."""


def bench_sorted_mean(name: str, size: int, count: int, args: argparse.Namespace) -> list[Row] | None:
    """Times the median and the trimmed mean, beside torch's sort of the stack."""
    clients = [change(size, torch.float32, seed) for seed in range(count)]
    base, out, expected = change(size, torch.float32, count), *torch.empty(2, size, device=DEVICE)
    cut = count // 10
    places = {"median": ((count - 1) // 2, count // 2 + 1), "trimmed": (cut, count - cut)}
    wrong = None
    for statistic, (first, last) in places.items():
        ops.sorted_mean(out, clients, base, first, last)
        reference.sorted_mean(expected, clients, base, first, last)
        if not same_bits(out, expected):
            wrong = f"bits of the {statistic} differ from the reference"
    print(f"sorted_mean    {name}, {count} clients: {wrong or 'correct'}", flush=True)
    if wrong or args.smoke:
        return None if wrong else []
    methods: dict[str, Callable[[], object]] = {}
    for statistic, (first, last) in places.items():
        methods[f"fedtlu_{statistic}"] = partial(ops.sorted_mean, out, clients, base, first, last)
        methods[f"torch_{statistic}"] = partial(reference.sorted_mean, expected, clients, base, first, last)
    case = (f"{name}, {count} clients", torch.float32, [size])
    traffic = (4 * size * (count + 1), 4 * size)
    return rows_of("sorted_mean", case, traffic, methods, dict.fromkeys(methods, 0.0), float("nan"), args)


def bench_distances_from(name: str, size: int, count: int, args: argparse.Namespace) -> list[Row] | None:
    """Times the squared distances from a base and a centre, with the copy of K numbers to the host."""
    clients = [change(size, torch.float32, seed) for seed in range(count)]
    base, centre = (change(size, torch.float32, count + seed) for seed in range(2))
    wrong = None
    errors: dict[str, float] = {}
    for choice in SUMS:
        for middle in (None, centre):
            with kept_in(choice):
                found = ops.squared_distances_from(clients, base, middle)
            truth = reference.squared_distances_from(clients, base, middle)
            error = float(((found - truth) / truth).abs().max())
            if not error <= RELATIVE[choice]:
                wrong = f"off by {error:.1e} of itself in {choice}"
        errors[f"fedtlu_{choice}"] = error
    print(f"squared_distances_from {name}, {count} clients: {wrong or 'correct'}", flush=True)
    if wrong or args.smoke:
        return None if wrong else []

    def in_float32() -> torch.Tensor:
        origin = base + centre
        return torch.stack([(client - origin).square().sum() for client in clients]).cpu()

    rival = float(((in_float32().double() - truth) / truth).abs().max())
    run = partial(ops.squared_distances_from, clients, base, centre)
    methods: dict[str, Callable[[], object]] = {
        "fedtlu": run,
        **both_ways("fedtlu", run),
        "torch_float32": in_float32,
        "torch_float64": partial(reference.squared_distances_from, clients, base, centre),
    }
    errors |= {"fedtlu": max(errors.values()), "torch_float32": rival, "torch_float64": 0.0}
    case = (f"{name}, {count} clients", torch.float32, [size])
    traffic = (4 * size * (count + 2), 0)
    rows = rows_of("squared_distances_from", case, traffic, methods, errors, float("nan"), args)
    compare(rows)
    return rows
