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
    """Returns `loss` itself for float32, and otherwise `loss` computed under `torch.autocast`.

    Parameters, their gradients and the loss stay float32; only the operations inside the forward and backward
    pass are rounded. Weights are cast at every use, because torch's cache of cast weights lasts for one pass
    only and does not work under `vmap`.

    Args:
        loss: a function that computes the loss of a batch, or the losses of K clients' batches.
        precision: "float32" or "bfloat16".
        device: the model's device.

    Raises:
        InputError: the device cannot compute in this precision.
    """
    if precision == "float32":
        return loss
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError("execution.precision", precision, "float32: this GPU cannot compute in bfloat16")
    inside: Loss = torch.autocast(device.type, torch.bfloat16, cache_enabled=False)(loss)
    return inside
