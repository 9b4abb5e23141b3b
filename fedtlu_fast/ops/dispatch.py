"""Which backend runs an operation, and the checks that every backend may rely on.

``auto`` takes the best live backend for the tensors at hand and logs once which one. A backend asked
for by name and not live raises `BackendUnavailableError` with the reason: nothing falls back silently.
"""

from __future__ import annotations

import importlib
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from fedtlu_fast.errors import BackendUnavailableError, InputError
from fedtlu_fast.ops.moments import Moments

logger = logging.getLogger("fedtlu_fast")

STATS_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
UPDATE_DTYPES = (torch.float32, torch.float64)
DEVICE_PATTERN = r"^(cpu|cuda(:\d+)?)$"


@dataclass(frozen=True)
class Backend:
    """One way to run the operations: its module, and the devices whose tensors it takes."""

    name: str
    module: str
    devices: Callable[[], tuple[str, ...]]
    """Device types that work now; the module's own import error says why when there are none."""


def _native_devices() -> tuple[str, ...]:
    return ("cpu",)


def _triton_devices() -> tuple[str, ...]:
    module = _load("triton")
    return () if isinstance(module, str) else tuple(module.devices())


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("triton", "fedtlu_fast.ops.triton", _triton_devices),
        Backend("native", "fedtlu_fast.ops.native", _native_devices),
        Backend("reference", "fedtlu_fast.ops.reference", lambda: ("cpu", "cuda", "mps", "xpu")),
    )
}
NAMES = ("auto", *BACKENDS)
# `auto` on a device: the first of these that is live. Triton's interpreter (CPU) only runs by name.
PREFERENCE = {"cpu": ("native", "reference"), "cuda": ("triton", "reference")}


@cache
def _load(name: str) -> ModuleType | str:
    """The backend's module, or why it cannot be used."""
    try:
        return importlib.import_module(BACKENDS[name].module)
    except ImportError as error:
        return str(error)


def why_not(name: str, device: str = "cpu") -> str | None:
    """None when the backend can run on tensors of this device type, else the reason."""
    module = _load(name)
    if isinstance(module, str):
        return module
    devices = BACKENDS[name].devices()
    if device in devices:
        return None
    if not devices:
        return "PyTorch sees no CUDA device (TRITON_INTERPRET=1 runs the kernels on the CPU, for tests only)"
    return f"takes tensors on {' or '.join(devices)}, not on {device}"


def live_backends(device: str = "cpu") -> list[str]:
    """Names of the backends that can run on this device type, the fastest first."""
    return [name for name in BACKENDS if why_not(name, device) is None]


def resolve(backend: str, device: str) -> ModuleType:
    """The module that runs operations on tensors of this device type.

    Raises:
        InputError: there is no backend of that name.
        BackendUnavailableError: it was asked for by name and cannot run here.
    """
    if backend not in NAMES:
        raise InputError("backend", backend, f"one of {', '.join(NAMES)}")
    if backend == "auto":
        backend = _best(device)
    reason = why_not(backend, device)
    module = _load(backend)
    if reason is not None or isinstance(module, str):
        others = ", ".join(live_backends(device))
        raise BackendUnavailableError(
            f"backend {backend!r} cannot run on {device} tensors: {reason}. "
            f"Live here: {others}; `fedtlu env` shows all of them"
        )
    return module


@cache
def _best(device: str) -> str:
    for name in PREFERENCE.get(device, ("reference",)):
        reason = why_not(name, device)
        if reason is None:
            logger.info("backend for %s tensors: %s", device, name)
            return name
        logger.warning("backend %s is not live (%s); trying the next", name, reason)
    raise BackendUnavailableError(f"no backend runs on {device} tensors")


def check_device(field: str, device: str) -> None:
    """Makes sure that this machine has the device.

    Args:
        field: where it was asked for, for the message.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: it has not, or there is no such device.
    """
    if not re.fullmatch(DEVICE_PATTERN, device):
        raise InputError(field, device, "cpu, cuda or cuda:N")
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        raise InputError(field, device, "cpu: PyTorch sees no CUDA device here")
    count, index = torch.cuda.device_count(), int(device.partition(":")[2] or 0)
    if index >= count:
        raise InputError(field, device, f"cuda:0 to cuda:{count - 1}, the devices PyTorch sees")


def layer_stats(delta: Tensor, offsets: Tensor, backend: str = "auto") -> Moments:
    """Moments of every layer of a flat change (`reference.layer_stats` says what they are).

    Raises:
        InputError: a dtype, shape or offset that no backend takes.
        BackendUnavailableError: see `resolve`.
    """
    _check_flat("delta", delta, STATS_DTYPES)
    _check_offsets(offsets, delta.numel())
    return resolve(backend, delta.device.type).layer_stats(delta.detach().contiguous(), offsets)  # type: ignore[no-any-return]


def layer_stats_list(tensors: Sequence[Tensor], backend: str = "auto") -> Moments:
    """Moments of separate tensors, one layer each (`reference.layer_stats_list`).

    Raises:
        InputError: a dtype no backend takes, or tensors on different devices.
        BackendUnavailableError: see `resolve`.
    """
    device = tensors[0].device if tensors else torch.device("cpu")
    for index, tensor in enumerate(tensors):
        if tensor.dtype not in STATS_DTYPES:
            _check_dtype(f"delta[{index}]", tensor, STATS_DTYPES)
        if tensor.device != device:
            raise InputError(f"delta[{index}].device", str(tensor.device), f"{device}, as the first tensor")
    flat = [_flat(tensor) for tensor in tensors]
    return resolve(backend, device.type).layer_stats_list(flat)  # type: ignore[no-any-return]


def accumulate_(
    aggregate: Tensor, client: Tensor, base: Tensor | None, weight: float, backend: str = "auto"
) -> None:
    """``aggregate += weight * (client - base)`` (`reference.accumulate_`); the same bits on every backend.

    Raises:
        InputError: shapes, dtypes or devices that do not fit; a weight that is not finite.
        BackendUnavailableError: see `resolve`.
    """
    _check_target("aggregate", aggregate)
    _check_like("client", client, aggregate)
    if base is not None:
        _check_like("base", base, aggregate)
        base = base.detach().contiguous()
    if not math.isfinite(weight):
        raise InputError("weight", weight, "a finite number")
    resolve(backend, aggregate.device.type).accumulate_(
        aggregate.detach(), client.detach().contiguous(), base, float(weight)
    )


def masked_apply_(
    params: Tensor, delta: Tensor, offsets: Tensor, mask: Tensor, lr: float = 1.0, backend: str = "auto"
) -> None:
    """``params[layer] += lr * delta[layer]`` where ``mask[layer]`` (`reference.masked_apply_`).

    The same bits on every backend; layers that are not chosen keep theirs.

    Raises:
        InputError: shapes, dtypes, devices or offsets that do not fit; an `lr` that is not finite.
        BackendUnavailableError: see `resolve`.
    """
    _check_target("params", params)
    _check_like("delta", delta, params)
    _check_offsets(offsets, params.numel())
    if mask.dtype != torch.bool or mask.device.type != "cpu" or mask.shape != (offsets.numel() - 1,):
        given = f"{mask.dtype} {tuple(mask.shape)} on {mask.device}"
        raise InputError("mask", given, f"a bool CPU tensor of shape ({offsets.numel() - 1},)")
    if not math.isfinite(lr):
        raise InputError("lr", lr, "a finite number")
    resolve(backend, params.device.type).masked_apply_(
        params.detach(), delta.detach().contiguous(), offsets, mask.contiguous(), float(lr)
    )


def _flat(tensor: Tensor) -> Tensor:
    """The tensor as a contiguous vector; the usual one is handed on as it is, since there may be 100,000."""
    if tensor.dim() == 1 and tensor.is_contiguous() and not tensor.requires_grad:
        return tensor
    return tensor.detach().contiguous().reshape(-1)


def _check_dtype(field: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    if tensor.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise InputError(f"{field}.dtype", str(tensor.dtype), f"one of {names}")


def _check_flat(field: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    _check_dtype(field, tensor, dtypes)
    if tensor.dim() != 1:
        raise InputError(
            f"{field}.shape", tuple(tensor.shape), "a flat vector [P]", "Use tensor.reshape(-1)."
        )


def _check_target(field: str, tensor: Tensor) -> None:
    _check_flat(field, tensor, UPDATE_DTYPES)
    if not tensor.is_contiguous():
        raise InputError(
            f"{field}.stride", tensor.stride(), "a contiguous vector, since it is changed in place"
        )


def _check_like(field: str, tensor: Tensor, target: Tensor) -> None:
    if (tensor.shape, tensor.dtype, tensor.device) != (target.shape, target.dtype, target.device):
        given = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        raise InputError(field, given, f"{target.dtype} {tuple(target.shape)} on {target.device}")


def _check_offsets(offsets: Tensor, length: int) -> None:
    if (
        offsets.dtype != torch.int64
        or offsets.device.type != "cpu"
        or offsets.dim() != 1
        or not offsets.numel()
    ):
        given = f"{offsets.dtype} {tuple(offsets.shape)} on {offsets.device}"
        raise InputError("offsets", given, "an int64 CPU vector [L + 1]")
    first, last = int(offsets[0]), int(offsets[-1])
    if first < 0 or last > length or bool((offsets[1:] < offsets[:-1]).any()):
        raise InputError("offsets", offsets.tolist(), f"non-decreasing numbers from 0 to {length}")
