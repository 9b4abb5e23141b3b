"""Shapes of known models, by size only: no weights are made or loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout


@dataclass(frozen=True)
class ModelShape:
    """A model to profile with: how to build it on the meta device, and the dtype of its change."""

    build: Callable[[], nn.Module]
    dtype: torch.dtype = torch.float32

    def layout(self) -> ParameterLayout:
        """Its layout by tensors."""
        with torch.device("meta"):
            return ParameterLayout.from_module(self.build(), "tensor")


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def _transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(d_model=256, nhead=4, dim_feedforward=1024, batch_first=True)
    blocks = nn.TransformerEncoder(layer, num_layers=6, enable_nested_tensor=False)
    return nn.Sequential(nn.Embedding(10_000, 256), blocks, nn.Linear(256, 10_000))


def _resnet18() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    size = ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic")
    model: nn.Module = ResNetForImageClassification(size)
    return model


def _gpt2(width: int, layers: int, heads: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    model: nn.Module = GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=layers, n_head=heads))
    return model


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    model: nn.Module = LlamaForCausalLM(LlamaConfig())
    return model


SHAPES = {
    "mlp": ModelShape(_mlp),
    "transformer-6": ModelShape(_transformer),
    "resnet-18": ModelShape(_resnet18),
    "gpt2": ModelShape(lambda: _gpt2(768, 12, 12)),
    "gpt2-bf16": ModelShape(lambda: _gpt2(768, 12, 12), torch.bfloat16),
    "gpt2-xl": ModelShape(lambda: _gpt2(1600, 48, 25)),
    "llama-7b-bf16": ModelShape(_llama, torch.bfloat16),
}


def random_change(layout: ParameterLayout, dtype: torch.dtype, device: str) -> Tensor:
    """[P]: noise, whose layers have excesses like a real change's: about 1/n, 1e-7 for a large matrix.

    Raises:
        InputError: there is not enough memory for it.
    """
    needed = layout.size * dtype.itemsize
    if needed > 0.7 * free_bytes(device):
        given = f"{layout.size:,} parameters ({needed / 1e9:.1f} GB)"
        raise InputError("--shapes", given, "a shape that fits in the memory")
    change = torch.empty(layout.size, dtype=dtype, device=device)
    generator = torch.Generator(device).manual_seed(0)
    # One block of noise, repeated: drawing billions of numbers would take longer than all measurements.
    noise = torch.randn(min(layout.size, 1 << 24), generator=generator, device=device).mul_(1e-3).to(dtype)
    for start in range(0, layout.size, noise.numel()):
        part = change[start : start + noise.numel()]
        part.copy_(noise[: part.numel()])
    return change


def free_bytes(device: str) -> int:
    """Memory that can be taken now."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # macOS tells only the whole
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
