"""Chooses the backend that runs an operation, and checks the arguments for it.

``auto`` takes the best live backend for the tensors at hand and logs once which one. If a backend is asked
for by name and is not live, `BackendUnavailableError` gives the reason: nothing falls back silently.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import overload

import torch
from torch import Tensor

from fedtlu_fast.errors import BackendUnavailableError, InputError, not_one_of
from fedtlu_fast.ops import checks
from fedtlu_fast.ops.moments import Moments

logger = logging.getLogger("fedtlu_fast")

PIECE = 1 << 20
"""A vector that is not contiguous is copied this many elements at a time."""

DEVICE_PATTERN = r"^(cpu|cuda(:\d+)?)$"


@dataclass(frozen=True)
class Backend:
    """One way to run the operations: its module, and the devices whose tensors it takes."""

    name: str
    module: str
    devices: Callable[[], tuple[str, ...]]
    """Device types that work now; if there are none, the module's import error says why."""


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
    """The backend's module, or why it cannot be used."""
    try:
        return importlib.import_module(BACKENDS[name].module)
    except ImportError as error:
        return str(error)


def why_not(name: str, device: str = "cpu") -> str | None:
    """None if the backend can run on tensors of this device type, else the reason why not."""
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
        raise not_one_of("backend", backend, NAMES)
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
    """Raise unless this machine has the device.

    Args:
        field: the setting or argument that asked for it, for the message.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: the machine lacks it, or the text names no device.
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
    """Moments of every layer of a flat change; `reference.layer_stats` defines them.

    Raises:
        InputError: a dtype, shape or offset that no backend takes.
        BackendUnavailableError: see `resolve`.
    """
    delta = checks.readable("delta", delta)
    checks.check_flat("delta", delta, checks.STATS_DTYPES)
    checks.check_offsets(offsets, delta.numel())
    if delta.numel() > 1 and delta.stride(0) == 0:
        return layer_stats_list([delta[start:end] for start, end in pairwise(offsets.tolist())], backend)
    return resolve(backend, delta.device.type).layer_stats(delta.detach().contiguous(), offsets)  # type: ignore[no-any-return]


def layer_stats_list(
    tensors: Sequence[Tensor], backend: str = "auto", names: Sequence[str] | None = None
) -> Moments:
    """Moments of separate tensors, one layer each (`reference.layer_stats_list`).

    Messages call the tensors by `names`, or by their index if it is None.

    Raises:
        InputError: a dtype no backend takes, or tensors on different devices.
        BackendUnavailableError: see `resolve`.
    """
    tensors = checks.layers("delta", tensors, names)
    device = tensors[0].device if tensors else torch.device("cpu")
    # All tensors are checked together, since there may be 100,000; the one at fault is looked up for the
    # error.
    dtypes, devices = {tensor.dtype for tensor in tensors}, {tensor.device for tensor in tensors}
    if not dtypes.issubset(checks.STATS_DTYPES) or not devices.issubset({device}):
        for name, tensor in zip(names or range(len(tensors)), tensors, strict=True):
            checks.check_dtype(f"delta[{name!r}]", tensor, checks.STATS_DTYPES)
            if tensor.device != device:
                given = str(tensor.device)
                raise InputError(f"delta[{name!r}].device", given, f"{device}, as the first tensor")
    module = resolve(backend, device.type)
    expanded = [index for index, tensor in enumerate(tensors) if 0 in tensor.stride() and tensor.numel() > 1]
    if not expanded:
        return module.layer_stats_list([_flat(tensor) for tensor in tensors])  # type: ignore[no-any-return]
    # The elements that an expanded tensor repeats are read once.
    times = torch.ones(len(tensors), dtype=torch.float64, device=device)
    for index in expanded:
        core = _core(tensors[index])
        times[index] = tensors[index].numel() / core.numel()
        tensors[index] = core
    found = module.layer_stats_list([_flat(tensor) for tensor in tensors])
    return Moments(found.count * times, found.mean, found.m2 * times, found.abs_max, found.nonfinite * times)


@overload
def accumulate_(
    aggregate: Tensor, client: Tensor, base: Tensor | None, weight: float, backend: str = "auto"
) -> None: ...


@overload
def accumulate_(
    aggregate: Tensor,
    client: Tensor,
    base: Tensor | None,
    weight: float,
    backend: str = "auto",
    *,
    offsets: Tensor,
) -> Moments: ...


def accumulate_(
    aggregate: Tensor,
    client: Tensor,
    base: Tensor | None,
    weight: float,
    backend: str = "auto",
    *,
    offsets: Tensor | None = None,
) -> Moments | None:
    """``aggregate += weight * (client - base)`` (`reference.accumulate_`); the same bits on every backend.

    With `offsets`, the moments of the new aggregate's layers come out of the same pass.

    Raises:
        InputError: shapes, dtypes, devices or offsets that do not fit; a weight that is not finite.
        BackendUnavailableError: see `resolve`.
    """
    checks.check_target("aggregate", aggregate)
    client = checks.readable("client", client)
    checks.check_addend("client", client, aggregate)
    client = _apart("client", client, "aggregate", aggregate)
    if base is not None:
        base = checks.readable("base", base)
        checks.check_like("base", base, client)
        base = _apart("base", base, "aggregate", aggregate)
    weight = checks.number("weight", weight)
    if offsets is not None:
        checks.check_offsets(offsets, aggregate.numel())
    module, target, found = resolve(backend, aggregate.device.type), aggregate.detach(), None
    pieces = _pieces(client, base)
    for piece in pieces:
        start = None if base is None else base[piece].contiguous()
        wanted = offsets if len(pieces) == 1 else None
        found = module.accumulate_(target[piece], client[piece].contiguous(), start, weight, wanted)
    checks.changed(aggregate)
    if offsets is not None and len(pieces) > 1:
        return module.layer_stats(target, offsets)  # type: ignore[no-any-return]
    return found


def aggregate(
    clients: Tensor | Iterable[Tensor],
    weights: Tensor | Iterable[float],
    offsets: Tensor,
    *,
    base: Tensor | None = None,
    out: Tensor | None = None,
    client_stats: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Moments, Moments | None]:
    """``sum_k weights[k] * (clients[k] - base)`` with the moments of its layers, in one pass.

    The vector has the same bits on every backend (`reference.aggregate`).

    Args:
        clients: [K, P], or K vectors [P]; float32, bfloat16, float16 or float64.
        weights: K numbers, usually n_k / sum(n).
        offsets: [L + 1], int64, on the CPU.
        base: [P], of the clients' dtype; None when the clients already are changes.
        out: [P], receives the sum: float64 for float64 clients, else float32. It may be one of the clients.
            None for a new vector.
        client_stats: whether to compute the moments of every client's layers too.

    Returns:
        `out`; the moments of its layers [L]; the moments of every client's change [K, L], or None.

    Raises:
        InputError: no clients; shapes, dtypes, devices or offsets that do not fit; a weight that is not
            finite.
        BackendUnavailableError: see `resolve`.
    """
    clients = checks.vectors("clients", clients)
    first = clients[0]
    # The rows of a matrix share dtype, shape and device, and there may be thousands.
    for index, client in enumerate([first] if isinstance(clients, Tensor) else clients):
        checks.check_flat(f"clients[{index}]", client, checks.STATS_DTYPES)
        checks.check_like(f"clients[{index}]", client, first)
    shares = checks.numbers("weights", weights, len(clients))
    checks.check_offsets(offsets, first.numel())
    if base is not None:
        base = checks.readable("base", base)
        checks.check_like("base", base, first)
    if out is None:
        out = torch.empty(first.shape, dtype=checks.TARGETS[first.dtype], device=first.device)
    checks.check_target("out", out)
    checks.check_addend("clients[0]", first, out)
    rows = clients.detach().unbind(0) if isinstance(clients, Tensor) else clients
    rows = [_apart(f"clients[{index}]", row, "out", out) for index, row in enumerate(rows)]
    base = None if base is None else _apart("base", base, "out", out)
    module, target = resolve(backend, first.device.type), out.detach()
    # The statistics of clients need whole vectors.
    pieces = [slice(None)] if client_stats else _pieces(*rows, base)
    for piece in pieces:
        parts = [row[piece].contiguous() for row in rows]
        start = None if base is None else base[piece].contiguous()
        wanted = offsets if len(pieces) == 1 else offsets[:1] * 0
        moments, each = module.aggregate(target[piece], parts, shares, start, wanted, client_stats)
    checks.changed(out)
    return out, moments if len(pieces) == 1 else module.layer_stats(target, offsets), each


def masked_apply_(
    params: Tensor, delta: Tensor, offsets: Tensor, mask: Tensor, lr: float = 1.0, backend: str = "auto"
) -> None:
    """``params[layer] += lr * delta[layer]`` where ``mask[layer]`` (`reference.masked_apply_`).

    Every backend gives the same bits; layers that are not chosen keep their bits.

    Raises:
        InputError: shapes, dtypes, devices or offsets that do not fit; an `lr` that is not finite.
        BackendUnavailableError: see `resolve`.
    """
    checks.check_target("params", params)
    delta = checks.readable("delta", delta)
    checks.check_addend("delta", delta, params)
    checks.check_offsets(offsets, params.numel())
    mask = checks.readable("mask", mask)
    if mask.dtype != torch.bool or mask.device.type != "cpu" or mask.shape != (offsets.numel() - 1,):
        given = f"{mask.dtype} {tuple(mask.shape)} on {mask.device}"
        raise InputError("mask", given, f"a bool CPU tensor of shape ({offsets.numel() - 1},)")
    lr = checks.number("lr", lr)
    delta = _apart("delta", delta, "params", params)
    module, target, mask = resolve(backend, params.device.type), params.detach(), mask.contiguous()
    for piece in _pieces(delta):
        first, stop, _ = piece.indices(len(target))
        within = offsets if stop - first == len(target) else offsets.clamp(first, stop) - first
        module.masked_apply_(target[piece], delta[piece].contiguous(), within, mask, lr)
    checks.changed(params)


def _apart(field: str, tensor: Tensor, target_field: str, target: Tensor) -> Tensor:
    """The vector, checked against `target`; a copy if it is strided and may share memory with it."""
    tensor = tensor.detach()
    if not tensor.is_contiguous():
        return tensor.contiguous() if checks.overlap(tensor, target) else tensor
    checks.check_apart(field, tensor, target_field, target)
    return tensor


def _pieces(*vectors: Tensor | None) -> list[slice]:
    """Where to cut vectors: kernels need contiguous ones, and whole copies would double the memory."""
    given = [vector for vector in vectors if vector is not None]
    length = len(given[0])
    if length <= PIECE or all(vector.is_contiguous() for vector in given):
        return [slice(None)]
    return [slice(start, start + PIECE) for start in range(0, length, PIECE)]


def _core(tensor: Tensor) -> Tensor:
    """The part of an expanded tensor that its other elements repeat."""
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def _flat(tensor: Tensor) -> Tensor:
    """The tensor as a contiguous vector; one that already is gets returned as is, as there may be 100,000."""
    if tensor.dim() == 1 and tensor.is_contiguous() and not tensor.requires_grad:
        return tensor
    return tensor.detach().contiguous().reshape(-1)
