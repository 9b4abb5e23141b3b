"""The operations: each checks its arguments, makes vectors contiguous and calls the chosen backend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, overload

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.ops import checks
from fedtlu_fast.ops.backends import resolve
from fedtlu_fast.ops.moments import Moments

PIECE = 1 << 20
"""A vector that is not contiguous is copied this many elements at a time."""


def layer_stats(delta: Tensor, offsets: Tensor, backend: str = "auto") -> Moments:
    """Computes the moments of every layer of a flat change; `reference.layer_stats` defines them.

    Args:
        delta: [P], float32, bfloat16, float16 or float64; any stride.
        offsets: [L + 1], int64, on the CPU, non-decreasing.
        backend: one of `backends.NAMES`.

    Raises:
        InputError: No backend takes this dtype, shape or offset.
        BackendUnavailableError: See `backends.resolve`.
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
    """Computes the moments of separate tensors; each tensor is one layer (`reference.layer_stats_list`).

    Args:
        tensors: L tensors of any shapes; dtypes as for `layer_stats`.
        backend: one of `backends.NAMES`.
        names: L names for error messages; None for the indices.

    Raises:
        InputError: No backend takes a dtype, or the tensors are on different devices.
        BackendUnavailableError: See `backends.resolve`.
    """
    tensors = checks.layers("delta", tensors, names)
    device = tensors[0].device if tensors else torch.device("cpu")
    # There may be 100,000 tensors, so all are checked together; the loop finds the wrong one for the error.
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
    # An expanded tensor repeats elements; each is read once and counted as often as it occurs.
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
    """Computes ``aggregate += weight * (client - base)``; every backend gives the same bits.

    `reference.accumulate_` defines the operation and its arguments. With `offsets`, the same pass also
    computes the moments of the new aggregate's layers.

    Raises:
        InputError: Shapes, dtypes, devices or offsets do not fit, or the weight is not finite.
        BackendUnavailableError: See `backends.resolve`.
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


@overload
def aggregate(
    clients: Tensor | Iterable[Tensor],
    weights: Tensor | Iterable[float],
    offsets: Tensor,
    *,
    base: Tensor | None = None,
    out: Tensor | None = None,
    client_stats: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Moments, Moments | None]: ...


@overload
def aggregate(
    clients: Tensor | Iterable[Tensor],
    weights: Tensor | Iterable[float],
    offsets: Tensor,
    *,
    base: Tensor | None = None,
    out: Tensor | None = None,
    client_stats: Literal["norms"],
    backend: str = "auto",
) -> tuple[Tensor, Moments, Tensor]: ...


def aggregate(
    clients: Tensor | Iterable[Tensor],
    weights: Tensor | Iterable[float],
    offsets: Tensor,
    *,
    base: Tensor | None = None,
    out: Tensor | None = None,
    client_stats: bool | Literal["norms"] = False,
    backend: str = "auto",
) -> tuple[Tensor, Moments, Moments | Tensor | None]:
    """Computes ``sum_k weights[k] * (clients[k] - base)`` and the moments of its layers in one pass.

    Every backend gives the same bits; `reference.aggregate` defines the operation.

    Args:
        clients: [K, P], or K vectors [P]; float32, bfloat16, float16 or float64.
        weights: K numbers, usually n_k / sum(n).
        offsets: [L + 1], int64, on the CPU.
        base: [P], in the dtype of the clients; None if the clients already are changes.
        out: [P], receives the sum; float64 for float64 clients, else float32. It may be one of the clients.
            None makes a new vector.
        client_stats: True for the moments of every client's layers too; "norms" for their squared L2 norms,
            which cost less.
        backend: one of `backends.NAMES`.

    Returns:
        `out`; the moments of its layers [L]; and of every client's change the moments [K, L], or the squared
        norms [K, L] float64, or None.

    Raises:
        InputError: There are no clients; shapes, dtypes, devices or offsets do not fit; a weight is not
            finite; or `client_stats` is neither a bool nor "norms".
        BackendUnavailableError: See `backends.resolve`.
    """
    clients = checks.vectors("clients", clients)
    first = clients[0]
    # The rows of a matrix share dtype, shape and device, and there may be thousands.
    for index, client in enumerate([first] if isinstance(clients, Tensor) else clients):
        checks.check_flat(f"clients[{index}]", client, checks.STATS_DTYPES)
        checks.check_like(f"clients[{index}]", client, first)
    shares = checks.numbers("weights", weights, len(clients))
    checks.check_offsets(offsets, first.numel())
    checks.check_client_stats(client_stats)
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
    """Computes ``params[layer] += lr * delta[layer]`` for the layers with ``mask[layer]``.

    `reference.masked_apply_` defines the operation and its arguments. Every backend gives the same bits;
    layers that are not chosen keep theirs.

    Raises:
        InputError: Shapes, dtypes, devices or offsets do not fit, or `lr` is not finite.
        BackendUnavailableError: See `backends.resolve`.
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
    """Returns a vector that an operation may read while it writes `target`.

    A strided vector that may share memory with `target` is copied. A contiguous vector that shares only a
    part of that memory is refused.
    """
    tensor = tensor.detach()
    if not tensor.is_contiguous():
        return tensor.contiguous() if checks.overlap(tensor, target) else tensor
    checks.check_apart(field, tensor, target_field, target)
    return tensor


def _pieces(*vectors: Tensor | None) -> list[slice]:
    """Returns the slices in which strided vectors are copied: kernels need contiguous memory.

    A copy of a whole vector would double the memory that an operation needs.
    """
    given = [vector for vector in vectors if vector is not None]
    length = len(given[0])
    if length <= PIECE or all(vector.is_contiguous() for vector in given):
        return [slice(None)]
    return [slice(start, start + PIECE) for start in range(0, length, PIECE)]


def _core(tensor: Tensor) -> Tensor:
    """Returns the elements of an expanded tensor that have memory of their own."""
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def _flat(tensor: Tensor) -> Tensor:
    """Returns the tensor as a contiguous vector."""
    if tensor.dim() == 1 and tensor.is_contiguous() and not tensor.requires_grad:
        return tensor
    return tensor.detach().contiguous().reshape(-1)
