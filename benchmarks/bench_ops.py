"""The operations on a GPT-2-sized change (124M float32, 148 tensors), beside what people write by hand.

    pytest benchmarks/bench_ops.py --benchmark-columns=median,ops

Correctness is not measured here but tested (tests/ops); a rival that mis-ranks layers is timed all the same.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from fedtlu_fast import ParameterLayout
from fedtlu_fast.ops import dispatch

Layers = list[Tensor]


@pytest.fixture(scope="module")
def layout() -> ParameterLayout:
    with torch.device("meta"):
        return ParameterLayout.from_module(GPT2LMHeadModel(GPT2Config()))


@pytest.fixture(scope="module")
def change(layout: ParameterLayout) -> Tensor:
    return torch.randn(layout.size).mul_(1e-3)


def by_float32_loop(layers: Layers) -> None:
    for layer in layers:
        layer.norm() / (layer.numel() ** 0.5 * layer.std())


def by_float64_loop(layers: Layers) -> None:
    for layer in layers:
        wide = layer.double()
        wide.norm() / (layer.numel() ** 0.5 * wide.std())


def by_std_mean_loop(layers: Layers) -> None:
    for layer in layers:
        torch.std_mean(layer)


RIVALS: dict[str, Callable[[Layers], None]] = {
    "torch-float32-loop": by_float32_loop,
    "torch-float64-loop": by_float64_loop,
    "torch-std-mean-loop": by_std_mean_loop,
}


@pytest.mark.benchmark(group="layer_stats GPT-2 float32")
@pytest.mark.parametrize("backend", [name for name in dispatch.live_backends("cpu") if name != "triton"])
def test_layer_stats(benchmark, backend, change, layout) -> None:
    benchmark(dispatch.layer_stats, change, layout.offsets, backend)


@pytest.mark.benchmark(group="layer_stats GPT-2 float32")
@pytest.mark.parametrize("rival", RIVALS)
def test_rival(benchmark, rival, change, layout) -> None:
    benchmark(RIVALS[rival], list(layout.views(change).values()))


@pytest.mark.benchmark(group="floor: reading once")
def test_torch_sum(benchmark, change) -> None:
    benchmark(change.sum)


@pytest.mark.benchmark(group="accumulate GPT-2 float32")
@pytest.mark.parametrize("backend", [name for name in dispatch.live_backends("cpu") if name != "triton"])
def test_accumulate(benchmark, backend, change) -> None:
    aggregate, base = torch.zeros_like(change), change + 1
    benchmark(dispatch.accumulate_, aggregate, change, base, 0.1, backend)


@pytest.mark.benchmark(group="accumulate GPT-2 float32")
def test_torch_accumulate(benchmark, change) -> None:
    aggregate, base = torch.zeros_like(change), change + 1
    benchmark(lambda: aggregate.add_(change - base, alpha=0.1))


@pytest.mark.benchmark(group="masked_apply GPT-2 float32, a third of the layers")
@pytest.mark.parametrize("backend", [name for name in dispatch.live_backends("cpu") if name != "triton"])
def test_masked_apply(benchmark, backend, change, layout) -> None:
    params = torch.zeros_like(change)
    mask = torch.arange(len(layout.layers)) % 3 == 0
    benchmark(dispatch.masked_apply_, params, change, layout.offsets, mask, 1.0, backend)
