"""Computes what torch does slowly with images on a CPU another way: pooling, and gradients of first layers.

torch takes the maxima of images [B, C, H, W] one number after another, at some 7 ns each, and of images whose
channels lie beside each other thirty times as fast; so images are turned over for it, which changes no bit.
oneDNN computes the gradient of a convolution's weights at a tenth of its usual speed if the images have a
single channel; a matrix product of all patches is faster. It sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fedtlu_fast.data.population import Batch

MOST_PATCHES = 2**23
"""Numbers in all patches of a batch up to which they are laid out side by side."""
TOGETHER = 2**17
"""Numbers in the images that are turned over together, so that they stay in a core's cache."""
FEWEST = 2**12
"""Numbers in a batch of images below which torch's own way costs no more."""


def with_cpu_images(loss: Callable[[Batch], Tensor], model: nn.Module) -> Callable[[Batch], Tensor]:
    """Returns `loss` computed under `CpuImages` if the model has a module of torch for images, else itself.

    Args:
        loss: the loss of a batch.
        model: the model that it runs.
    """
    if not any(isinstance(module, nn.Conv2d | nn.MaxPool2d) for module in model.modules()):
        return loss

    def computed(batch: Batch) -> Tensor:
        with CpuImages():
            return loss(batch)

    return computed


class CpuImages(TorchFunctionMode):
    """Replaces the slow operations inside the context, in this thread, for plain float32 on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.max_pool2d or func is torch.max_pool2d:
            found = _pooled(*args, **(kwargs or {}))
        elif func is torch.conv2d:
            found = _convolved(*args, **(kwargs or {}))
        else:
            return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if found is None else found


def _pooled(
    images: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:
    """Returns the pooled images, or None if torch is to pool them."""
    if return_indices or not _plain(images) or not images.is_contiguous():
        return None
    window = _pair(kernel_size)
    settings = (window, _pair(stride) if stride else window, _pair(padding), _pair(dilation), ceil_mode)
    found: Tensor = _MaxPool.apply(images, settings)  # type: ignore[no-untyped-call]
    return found


def _convolved(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    """Returns the convolved images, or None if torch is to convolve them."""
    if not _plain(images) or isinstance(padding, str) or groups != 1 or weight.dtype != torch.float32:
        return None
    if images.shape[1] != 1 or not (torch.is_grad_enabled() and weight.requires_grad):
        return None
    settings = (_pair(stride), _pair(padding), _pair(dilation))
    found: Tensor = _Convolution.apply(images, weight, bias, settings)  # type: ignore[no-untyped-call]
    return found


def _plain(images: Tensor) -> bool:
    return (
        images.dim() == 4
        and images.dtype == torch.float32
        and images.device.type == "cpu"
        and images.numel() >= FEWEST
        and not torch.is_autocast_enabled("cpu")
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, settings: tuple[Any, ...]) -> Tensor:
        parts = [
            torch.ops.aten.max_pool2d_with_indices(
                part.contiguous(memory_format=torch.channels_last), *settings
            )
            for part in torch.split(images, max(1, TOGETHER // images[0].numel()))
        ]
        pooled = images.new_empty((len(images), *parts[0][0].shape[1:]))
        places = torch.empty_like(pooled, dtype=torch.int64)
        torch.cat([values for values, _ in parts], out=pooled)
        torch.cat([own for _, own in parts], out=places)
        ctx.settings = settings
        ctx.save_for_backward(images, places)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        images, places = ctx.saved_tensors
        pooled = torch.ops.aten.max_pool2d_with_indices_backward
        found: Tensor = pooled(grad.contiguous(), images, *ctx.settings, places)
        return found, None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, settings: tuple[Any, ...]
    ) -> Tensor:
        ctx.settings, ctx.biased = settings, bias is not None
        ctx.save_for_backward(images, weight)
        return torch.conv2d(images, weight, bias, *settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        images, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.settings
        wanted = list(ctx.needs_input_grad[:3])
        patches = weight[0].numel() * grad.numel() // len(weight)
        by_product = wanted[1] and patches <= MOST_PATCHES
        of_images, of_weight, of_bias = torch.ops.aten.convolution_backward(
            grad, images, weight, [len(weight)], stride, padding, dilation, False, [0, 0], 1,
            [wanted[0], wanted[1] and not by_product, wanted[2] and not by_product],
        )  # fmt: skip
        if by_product:
            laid_out = F.unfold(images, weight.shape[2:], dilation, padding, stride)
            rows = grad.flatten(2)
            of_weight = torch.bmm(rows, laid_out.transpose(1, 2)).sum(dim=0).view_as(weight)
            of_bias = rows.sum(dim=(0, 2)) if wanted[2] else None
        return of_images, of_weight, of_bias, None
