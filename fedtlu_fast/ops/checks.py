"""What every backend may rely on: dtypes, shapes and devices that fit, checked once for all of them.

Each check raises `InputError` with the argument's name.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError

STATS_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
UPDATE_DTYPES = (torch.float32, torch.float64)
# What is added to a vector may be narrower than the vector: dtype of the addend -> of the target.
TARGETS = dict.fromkeys(STATS_DTYPES, torch.float32) | {torch.float64: torch.float64}


def check_dtype(field: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    """Refuse a tensor of another dtype."""
    if tensor.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise InputError(f"{field}.dtype", str(tensor.dtype), f"one of {names}")


def check_flat(field: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    """Refuse what is not a vector of one of these dtypes; any stride will do."""
    check_dtype(field, tensor, dtypes)
    if tensor.dim() != 1:
        raise InputError(
            f"{field}.shape", tuple(tensor.shape), "a flat vector [P]", "Use tensor.reshape(-1)."
        )


def check_target(field: str, tensor: Tensor) -> None:
    """Refuse what cannot be updated in place: a contiguous vector of `UPDATE_DTYPES` can."""
    check_flat(field, tensor, UPDATE_DTYPES)
    if not tensor.is_contiguous():
        raise InputError(
            f"{field}.stride", tensor.stride(), "a contiguous vector, since it is changed in place"
        )


def check_like(field: str, tensor: Tensor, target: Tensor) -> None:
    """Refuse a tensor whose shape, dtype or device is not that of `target`."""
    if (tensor.shape, tensor.dtype, tensor.device) != (target.shape, target.dtype, target.device):
        given = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        raise InputError(field, given, f"{target.dtype} {tuple(target.shape)} on {target.device}")


def check_addend(field: str, tensor: Tensor, target: Tensor) -> None:
    """Refuse what cannot be added to `target` (see `TARGETS`)."""
    check_flat(field, tensor, STATS_DTYPES)
    if (tensor.shape, tensor.device) != (target.shape, target.device):
        given = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        raise InputError(field, given, f"{tuple(target.shape)} on {target.device}")
    if TARGETS[tensor.dtype] != target.dtype:
        fitting = (dtype for dtype, wide in TARGETS.items() if wide == target.dtype)
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in fitting)
        raise InputError(f"{field}.dtype", str(tensor.dtype), f"one of {names}, to go into {target.dtype}")


def check_offsets(offsets: Tensor, length: int) -> None:
    """Refuse what are not layers of a vector of this length."""
    if (
        offsets.dtype != torch.int64
        or offsets.device.type != "cpu"
        or offsets.dim() != 1
        or not offsets.numel()
    ):
        given = f"{offsets.dtype} {tuple(offsets.shape)} on {offsets.device}"
        raise InputError("offsets", given, "an int64 CPU vector [L + 1]")
    bounds = offsets.numpy()  # several times faster than torch on a short array
    if bounds[0] < 0 or bounds[-1] > length or (bounds[1:] < bounds[:-1]).any():
        raise InputError("offsets", offsets.tolist(), f"non-decreasing numbers from 0 to {length}")
