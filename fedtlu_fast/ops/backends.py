"""The backends that run the operations: which ones are live here, and which one runs a call.

``auto`` takes the fastest live backend for the device of the tensors and logs once which one. If a caller
names a backend that is not live, `BackendUnavailableError` gives the reason: nothing falls back silently.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch

from fedtlu_fast.errors import BackendUnavailableError, InputError, not_one_of

logger = logging.getLogger("fedtlu_fast")

DEVICE_PATTERN = r"^(cpu|cuda(:\d+)?)$"


@dataclass(frozen=True)
class Backend:
    """One implementation of the operations: its module, and the devices whose tensors it takes."""

    name: str
    module: str
    devices: Callable[[], tuple[str, ...]]
    """Returns the device types that work now; empty if there are none."""


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
# `auto` takes the first of these that is live. Triton's interpreter (CPU) runs only when asked for by name.
PREFERENCE = {"cpu": ("native", "reference"), "cuda": ("triton", "reference")}


@cache
def _load(name: str) -> ModuleType | str:
    """Imports the backend's module; returns the reason as a text if that fails."""
    try:
        return importlib.import_module(BACKENDS[name].module)
    except ImportError as error:
        return str(error)


def why_not(name: str, device: str = "cpu") -> str | None:
    """Returns the reason why a backend cannot run on tensors of this device type; None if it can."""
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
    """Returns the names of the backends that can run on this device type, the fastest first."""
    return [name for name in BACKENDS if why_not(name, device) is None]


def resolve(backend: str, device: str) -> ModuleType:
    """Returns the module that runs operations on tensors of this device type.

    Args:
        backend: one of `NAMES`.
        device: a device type, such as ``cpu`` or ``cuda``.

    Raises:
        InputError: There is no backend of that name.
        BackendUnavailableError: The named backend cannot run here.
    """
    if backend not in NAMES:
        raise not_one_of("backend", backend, NAMES)
    if backend == "auto":
        backend = _best(device)
    reason = why_not(backend, device)
    module = _load(backend)
    if reason is not None or isinstance(module, str):
        others = ", ".join(live_backends(device))
        raise BackendUnavailableError(
            f"backend {backend!r} cannot run on {device} tensors: {reason}. "
            f"Live here: {others}; `fedtlu env` shows all backends"
        )
    return module


def reader(backend: str, given: object) -> ModuleType | None:
    """Returns the module whose functions take any arguments, and check them, if it would run this call.

    `native` is such a module; its functions raise `native.NotPlainError` for what they do not take as it is.

    Args:
        backend: as for `resolve`.
        given: the argument whose device decides.
    """
    if backend not in ("auto", "native") or not getattr(given, "is_cpu", False):
        return None
    module = _load(_best("cpu") if backend == "auto" else backend)
    return module if getattr(module, "READS_TENSORS", False) else None  # type: ignore[return-value]


@cache
def _best(device: str) -> str:
    for name in PREFERENCE.get(device, ("reference",)):
        reason = why_not(name, device)
        if reason is None:
            logger.info("backend for %s tensors: %s", device, name)
            return name
        logger.warning("backend %s is not live (%s); trying the next", name, reason)
    raise BackendUnavailableError(f"no backend runs on {device} tensors")


def traced() -> ModuleType:
    """Returns the operations that torch.compile takes into its graphs; importing them takes milliseconds."""
    from fedtlu_fast.ops import torch_ops  # a statement: torch.compile does not follow importlib

    return torch_ops


def check_device(field: str, device: str) -> None:
    """Raises an error unless this machine has the device.

    Args:
        field: the setting or argument that asked for the device, for the message.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: The machine lacks the device, or the text names no device.
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
