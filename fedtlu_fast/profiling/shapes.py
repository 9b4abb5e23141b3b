"""Lists shapes of known models; only sizes, so that no weights are created or loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import Block, Group, Layer, ParameterLayout
from fedtlu_fast.memory import free_bytes
from fedtlu_fast.wording import either


@dataclass(frozen=True)
class ModelShape:
    """Describes a shape to profile with: how to build its layout or model, and the change's dtype."""

    build: Callable[[], nn.Module | ParameterLayout]
    dtype: torch.dtype = torch.float32

    def layout(self) -> ParameterLayout:
        """Returns the layout by tensors; a model is built on the meta device."""
        with torch.device("meta"):
            built = self.build()
        return built if isinstance(built, ParameterLayout) else ParameterLayout.from_module(built, "tensor")


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


def _equal_layers(number: int, size: int) -> ParameterLayout:
    """Lays out `number` vectors of `size` elements, in groups of a hundred; no real model has this shape."""
    layers = tuple(Layer(f"layers.{index}", (size,), index * size) for index in range(number))
    blocks = tuple(Block(layer.name, (index,)) for index, layer in enumerate(layers))
    starts = range(0, number if number > 1 else 0, 100)
    groups = tuple(Group(f"layers#{at // 100}", tuple(range(at, min(at + 100, number)))) for at in starts)
    return ParameterLayout(layers, blocks, groups, (), "tensor")


SHAPES = {
    "mlp": ModelShape(_mlp),
    "transformer-6": ModelShape(_transformer),
    "resnet-18": ModelShape(_resnet18),
    "gpt2": ModelShape(lambda: _gpt2(768, 12, 12)),
    "gpt2-bf16": ModelShape(lambda: _gpt2(768, 12, 12), torch.bfloat16),
    "gpt2-xl": ModelShape(lambda: _gpt2(1600, 48, 25)),
    "llama-7b-bf16": ModelShape(_llama, torch.bfloat16),
    "100k-layers": ModelShape(lambda: _equal_layers(100_000, 100)),
    "one-layer": ModelShape(lambda: _equal_layers(1, 10_000_000)),
}


def check_fits(layout: ParameterLayout, dtype: torch.dtype, device: str) -> None:
    """Raises an error if a change of this size does not fit in the memory.

    Raises:
        InputError: there is not enough memory for it.
    """
    needed = layout.size * dtype.itemsize
    if not fits(needed, device):
        given = f"{layout.size:,} parameters ({needed / 1e9:.1f} GB)"
        raise InputError(either("shapes", "--shapes"), given, "a shape that fits in the memory")


def fitting(shapes: Sequence[str], device: str) -> tuple[list[str], list[str]]:
    """Returns the shapes whose change fits in the memory, and the others."""
    sizes = {name: SHAPES[name].layout().size * SHAPES[name].dtype.itemsize for name in shapes}
    kept = [name for name, size in sizes.items() if fits(size, device)]
    return kept, [name for name in shapes if name not in kept]


def fits(size: int, device: str) -> bool:
    """Tells whether this many bytes leave a good part of the free memory to other processes."""
    return size <= 0.7 * free_bytes(device)


def random_change(layout: ParameterLayout, dtype: torch.dtype, device: str) -> Tensor:
    """Makes noise [P] whose layers have excesses like a real change's: about 1/n, 1e-7 for a large matrix.

    Raises:
        InputError: there is not enough memory for it.
    """
    check_fits(layout, dtype, device)
    change = torch.empty(layout.size, dtype=dtype, device=device)
    generator = torch.Generator(device).manual_seed(0)
    # One block of noise, repeated: drawing billions of numbers would take longer than all measurements. Its
    # length divides no matrix and its scale varies, or all large layers would be rotations of one layer.
    length = (1 << 24) - 3
    noise = torch.randn(min(layout.size, length), generator=generator, device=device).mul_(1e-3).to(dtype)
    gains = torch.rand(layout.size // length + 1, generator=generator, device=device) + 0.5
    for start, gain in zip(range(0, layout.size, length), gains.tolist(), strict=False):
        part = change[start : start + length]
        torch.mul(noise[: part.numel()], gain, out=part)
    return change


def random_clients(change: Tensor, number: int) -> Tensor:
    """Returns the change, rotated so that no two clients are equal, [K, P] in the dtype of `change`."""
    clients = change.new_empty(number, change.numel())
    for index, client in enumerate(clients):
        cut = index * 7_919_111 % change.numel()
        client[: change.numel() - cut] = change[cut:]
        client[change.numel() - cut :] = change[:cut]
    return clients
