"""Times the operations on a GPT-2-sized change (124M float32, 148 tensors), beside hand-written code.

    pytest benchmarks/bench_ops.py --benchmark-columns=median,ops

The methods are those of `fedtlu profile`, which checks each of them against float64 first (here a fixture
does) and calls them in turn. Here each is timed separately, so drift of the machine's speed distorts the
ratios. FEDTLU_BENCH_SHAPE names another shape of `fedtlu profile`, FEDTLU_BENCH_CLIENTS the K of aggregate.
"""

from __future__ import annotations

import gc
import os
from functools import lru_cache
from warnings import warn

import pytest

from fedtlu_fast.ops import backends
from fedtlu_fast.profiling.bandwidth import Probes
from fedtlu_fast.profiling.cases import OURS, Case, Subject
from fedtlu_fast.profiling.operations import OPS
from fedtlu_fast.profiling.rivals import (
    COMPILED,
    FLOAT32_LOOP,
    FLOWER,
    RIVALS,
    STD_MEAN_LOOP,
    SUM_AND_LOOP,
)
from fedtlu_fast.profiling.robust_rivals import FLOWER_KRUM, FLOWER_MEDIAN, FLOWER_TRIMMED
from fedtlu_fast.profiling.shapes import SHAPES, random_change

SHAPE = os.environ.get("FEDTLU_BENCH_SHAPE", "gpt2")
CLIENTS = int(os.environ.get("FEDTLU_BENCH_CLIENTS", "4"))
BACKENDS = [name for name in backends.live_backends("cpu") if name not in ("triton", "reference")]

FOLLOWED = [f"torch add_ + {name.removeprefix('torch ')}" for name in (FLOAT32_LOOP, STD_MEAN_LOOP, COMPILED)]
SUMS = ["torch.mv", SUM_AND_LOOP, "torch.einsum", "torch add_ loop", FLOWER]
METHODS = {
    "layer_stats": [*RIVALS, COMPILED],
    "layer_stats (list)": [*RIVALS, COMPILED],
    "accumulate_": ["torch add_"],
    "accumulate_+stats": FOLLOWED,
    "aggregate": SUMS,
    "aggregate+clients": SUMS,
    "aggregate+norms": SUMS,
    "masked_apply_": ["torch loop", "torch foreach_add_"],
    "median": ["torch sort", "numpy median", FLOWER_MEDIAN],
    "trimmed mean": ["torch sort", "numpy sort", FLOWER_TRIMMED],
    "distances": ["torch cdist", "torch pdist, float64", "numpy loop"],
    "krum": ["torch cdist", FLOWER_KRUM],
}
PAIRS = [(op, name) for op in OPS for name in [*(OURS + backend for backend in BACKENDS), *METHODS[op]]]


@lru_cache(maxsize=1)
def case_of(op: str) -> Case:
    """Keeps only the last case, because the clients of aggregate take gigabytes."""
    gc.collect()
    layout = SHAPES[SHAPE].layout()
    change = random_change(layout, SHAPES[SHAPE].dtype, "cpu")
    return OPS[op].case(Subject(change, layout, BACKENDS, CLIENTS, lambda note: warn(note, stacklevel=1)))


@pytest.mark.parametrize(("op", "method"), PAIRS)
def test_method(benchmark, op, method) -> None:
    case = case_of(op)
    if method not in case.methods:
        pytest.skip(f"{method} cannot run here; the warnings say why")
    benchmark.group = f"{op} {SHAPE}"
    accuracy = case.accuracy[method]
    benchmark.extra_info.update(vars(accuracy))
    benchmark(case.methods[method])


@pytest.mark.benchmark(group="floor: reading and writing")
@pytest.mark.parametrize("probe", ["sum", "amax", "read loop", "fill", "zero"])
def test_bandwidth(benchmark, probe) -> None:
    probes = Probes(0, "cpu").methods
    if f"probe {probe}" not in probes:
        pytest.skip("the read loop is the native backend's")
    benchmark(probes[f"probe {probe}"])
