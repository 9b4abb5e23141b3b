"""Mixed precision: a forward pass whose matrix products are in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError

Precision = Literal["float32", "bfloat16"]
Loss = TypeVar("Loss", bound=Callable[..., Tensor])


def in_precision(loss: Loss, precision: Precision, device: torch.device) -> Loss:
    """The same loss, computed by `torch.autocast` if the precision is not the parameters' own.

    Parameters, their gradients and the loss stay float32; only what runs inside is rounded. Weights are
    cast anew at every use: torch's cache of them would not outlive a pass, and does not know `vmap`.

    Args:
        loss: of a batch, or of a batch of each of K clients.
        precision: float32 gives `loss` itself back.
        device: the model's.

    Raises:
        InputError: the device cannot compute in this precision.
    """
    if precision == "float32":
        return loss
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("execution.precision", precision, "float32: this GPU cannot compute in bfloat16")
    inside: Loss = torch.autocast(device.type, torch.bfloat16, cache_enabled=False)(loss)
    return inside
