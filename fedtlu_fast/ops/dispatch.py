"""The operations: each checks its arguments, makes vectors contiguous and calls the chosen backend.

A backend that checks plain tensors itself (`backends.reader`) is called first, with the arguments as they
are: checks in Python take longer than the computation on a model of 10,000 parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, overload

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.ops import checks
from fedtlu_fast.ops.backends import reader, resolve, traced
from fedtlu_fast.ops.moments import Moments
from fedtlu_fast.ops.plain import apart, bare, core, flat, pieces_of


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
    if torch.compiler.is_dynamo_compiling():
        return traced().layer_stats(delta, offsets, backend)  # type: ignore[no-any-return]
    if (module := reader(backend, delta)) is not None:
        try:
            return module.layer_stats(delta, offsets)  # type: ignore[no-any-return]
        except module.NotPlainError:
            pass
    delta = checks.readable("delta", delta)
    checks.check_flat("delta", delta, checks.STATS_DTYPES)
    offsets = checks.bounds(offsets, delta.numel())
    if delta.numel() > 1 and delta.stride(0) == 0:
        return layer_stats_list([delta[start:end] for start, end in pairwise(offsets.tolist())], backend)
    return resolve(backend, delta.device.type).layer_stats(bare(delta).contiguous(), offsets)  # type: ignore[no-any-return]


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
    if torch.compiler.is_dynamo_compiling():
        return traced().layer_stats_list(tensors, backend)  # type: ignore[no-any-return]
    known = isinstance(tensors, (list, tuple)) and len(tensors) > 0
    if known and (module := reader(backend, tensors[0])) is not None:
        try:
            return module.layer_stats_list(tensors)  # type: ignore[no-any-return]
        except module.NotPlainError:
            pass
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
        return module.layer_stats_list([flat(tensor) for tensor in tensors])  # type: ignore[no-any-return]
    # An expanded tensor repeats elements; each is read once and counted as often as it occurs.
    times = torch.ones(len(tensors), dtype=torch.float64, device=device)
    for index in expanded:
        own = core(tensors[index])
        times[index] = tensors[index].numel() / own.numel()
        tensors[index] = own
    found = module.layer_stats_list([flat(tensor) for tensor in tensors])
    for row in (found.count, found.m2, found.nonfinite):
        row *= times
    return found  # type: ignore[no-any-return]


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
    """Computes ``aggregate += weight * (client - base)``.

    `reference.accumulate_` defines the operation and its arguments. Every backend gives the same bits, but
    for GPUs whose float64 is slow: there the last digit of float32 may differ. With `offsets`, the same pass
    also computes the moments of the new aggregate's layers.

    Raises:
        InputError: Shapes, dtypes, devices or offsets do not fit, or the weight is not finite.
        BackendUnavailableError: See `backends.resolve`.
    """
    if torch.compiler.is_dynamo_compiling():
        return traced().accumulate_(aggregate, client, base, weight, backend, offsets)  # type: ignore[no-any-return]
    if (module := reader(backend, aggregate)) is not None:
        try:
            found: Moments | None = module.accumulate_(aggregate, client, base, weight, offsets)
        except module.NotPlainError:
            pass
        else:
            checks.changed(aggregate)
            return found
    checks.check_target("aggregate", aggregate)
    client = checks.readable("client", client)
    checks.check_addend("client", client, aggregate)
    client = apart("client", client, "aggregate", aggregate)
    if base is not None:
        base = checks.readable("base", base)
        checks.check_like("base", base, client)
        base = apart("base", base, "aggregate", aggregate)
    weight = checks.number("weight", weight)
    if offsets is not None:
        offsets = checks.bounds(offsets, aggregate.numel())
    module, target, found = resolve(backend, aggregate.device.type), bare(aggregate), None
    pieces = pieces_of(client, base)
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

    `reference.aggregate` defines the operation. Every backend gives the same bits, but for GPUs whose float64
    is slow: there the last digit of float32 may differ.

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
    if torch.compiler.is_dynamo_compiling():
        return traced().aggregate(clients, weights, offsets, base, out, client_stats, backend)  # type: ignore[no-any-return]
    first: Tensor | None = clients if isinstance(clients, Tensor) else None
    if isinstance(clients, (list, tuple)) and clients:
        first = clients[0]
    if first is not None and (module := reader(backend, first)) is not None and not first.is_nested:
        into = torch.empty(first.shape[-1:], dtype=checks.TARGETS.get(first.dtype)) if out is None else out
        try:
            moments, each = module.aggregate(into, clients, weights, base, offsets, client_stats)
        except module.NotPlainError:
            pass
        else:
            checks.changed(into)
            return into, moments, each
    clients = checks.vectors("clients", clients)
    first = clients[0]
    # The rows of a matrix share dtype, shape and device, and there may be thousands.
    for index, client in enumerate([first] if isinstance(clients, Tensor) else clients):
        checks.check_flat(f"clients[{index}]", client, checks.STATS_DTYPES)
        checks.check_like(f"clients[{index}]", client, first)
    shares = torch.tensor(checks.numbers("weights", weights, len(clients)), dtype=torch.float64, device="cpu")
    offsets = checks.bounds(offsets, first.numel())
    client_stats = checks.client_stats(client_stats)
    if base is not None:
        base = checks.readable("base", base)
        checks.check_like("base", base, first)
    if out is None:
        out = torch.empty(first.shape, dtype=checks.TARGETS[first.dtype], device=first.device)
    checks.check_target("out", out)
    checks.check_addend("clients[0]", first, out)
    rows = bare(clients).unbind(0) if isinstance(clients, Tensor) else clients
    rows = [apart(f"clients[{index}]", row, "out", out) for index, row in enumerate(rows)]
    base = None if base is None else apart("base", base, "out", out)
    module, target = resolve(backend, first.device.type), bare(out)
    # The statistics of clients need whole vectors.
    pieces = [slice(None)] if client_stats else pieces_of(*rows, base)
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

    `reference.masked_apply_` defines the operation and its arguments. Every backend gives the same bits, but
    for GPUs whose float64 is slow: there the last digit of float32 may differ. Layers that are not chosen
    keep their bits.

    Raises:
        InputError: Shapes, dtypes, devices or offsets do not fit, or `lr` is not finite.
        BackendUnavailableError: See `backends.resolve`.
    """
    if torch.compiler.is_dynamo_compiling():
        traced().masked_apply_(params, delta, offsets, mask, lr, backend)
        return
    if (module := reader(backend, params)) is not None:
        try:
            module.masked_apply_(params, delta, offsets, mask, lr)
        except module.NotPlainError:
            pass
        else:
            checks.changed(params)
            return
    checks.check_target("params", params)
    delta = checks.readable("delta", delta)
    checks.check_addend("delta", delta, params)
    offsets = checks.bounds(offsets, params.numel())
    mask = checks.readable("mask", mask)
    if mask.dtype != torch.bool or mask.device.type != "cpu" or mask.shape != (offsets.numel() - 1,):
        given = f"{mask.dtype} {tuple(mask.shape)} on {mask.device}"
        raise InputError("mask", given, f"a bool CPU tensor of shape ({offsets.numel() - 1},)")
    lr = checks.number("lr", lr)
    delta = apart("delta", delta, "params", params)
    module, target, mask = resolve(backend, params.device.type), bare(params), bare(mask).contiguous()
    for piece in pieces_of(delta):
        first, stop, _ = piece.indices(len(target))
        within = offsets if stop - first == len(target) else offsets.clamp(first, stop) - first
        module.masked_apply_(target[piece], delta[piece].contiguous(), within, mask, lr)
    checks.changed(params)
