"""The models whose vectors are measured."""

from __future__ import annotations

import torch
from torch import Tensor

from fedtlu_fast.profiling.shapes import SHAPES
from gpu_rows import DEVICE


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
            "tiny": (torch.float32, [3, 0, 40, 1, 17]),
            "tiny-bf16": (torch.bfloat16, [40, 5]),
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
        return {
            "tiny": (torch.float32, [20, 7], (3,)),
            "tiny-bf16": (torch.bfloat16, [3, 20], (1,)),
        }
    transformer = [layer.numel for layer in SHAPES["transformer-6"].layout().layers]
    return {
        "transformer-6": (torch.float32, transformer, (10, 32, 100)),
        "gpt2-124m": (torch.float32, gpt2(768, 12), (10, 32, 100)),
        "gpt2-124m-bf16": (torch.bfloat16, gpt2(768, 12), (10, 32)),
    }


def stack_cases(smoke: bool) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Maps names to the parameters and the numbers of clients of cohorts' stacks."""
    if smoke:
        return {"tiny": (37, (1, 5))}
    return {"5m": (5_000_000, (1, 10, 32, 100, 200))}


def offsets_of(sizes: list[int]) -> Tensor:
    return torch.tensor([0, *sizes]).cumsum(0)


def change(parameters: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Makes a change whose mean is a hundredth of its standard deviation."""
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.empty(parameters, dtype=dtype, device=DEVICE).normal_(1e-5, 1e-3, generator=generator)
