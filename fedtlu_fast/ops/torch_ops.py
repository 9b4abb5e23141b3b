"""The operations as PyTorch's own: ``torch.ops.fedtlu.*``, for torch.compile, CUDA graphs and the profiler.

Importing this module registers them. They run what `dispatch` runs, with the same checks and the same bits.
In code that torch.compile traces, the functions of `dispatch` call the functions here of the same names, so
that such code needs no change. Moments are one tensor there, [5, L]: count, mean, m2, abs_max, nonfinite.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.library import custom_op

from fedtlu_fast.errors import not_one_of
from fedtlu_fast.ops import checks, dispatch
from fedtlu_fast.ops.moments import Moments

_NOTHING, _MOMENTS, _NORMS = "nothing", "moments", "norms"
# How many rows `aggregate` returns for every client's layers.
_ROWS = {_NOTHING: 0, _MOMENTS: 5, _NORMS: 1}


# --- the operations ------------------------------------------------------------------------------


@custom_op("fedtlu::layer_stats", mutates_args=())
def _layer_stats(delta: Tensor, offsets: Tensor, backend: str = "auto") -> Tensor:
    return _rows(dispatch.layer_stats(delta, offsets, backend))


@_layer_stats.register_fake
def _(delta: Tensor, offsets: Tensor, backend: str = "auto") -> Tensor:
    return delta.new_empty((5, offsets.shape[0] - 1), dtype=torch.float64)


@custom_op("fedtlu::layer_stats_list", mutates_args=())
def _layer_stats_list(tensors: Sequence[Tensor], backend: str = "auto") -> Tensor:
    return _rows(dispatch.layer_stats_list(tensors, backend))


@_layer_stats_list.register_fake
def _(tensors: Sequence[Tensor], backend: str = "auto") -> Tensor:
    device = tensors[0].device if tensors else "cpu"
    return torch.empty((5, len(tensors)), dtype=torch.float64, device=device)


@custom_op("fedtlu::accumulate_", mutates_args=("aggregate",))
def _accumulate(
    aggregate: Tensor,
    client: Tensor,
    base: Tensor | None,
    weight: float,
    offsets: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    if offsets is None:
        dispatch.accumulate_(aggregate, client, base, weight, backend)
        return aggregate.new_empty((5, 0), dtype=torch.float64)
    return _rows(dispatch.accumulate_(aggregate, client, base, weight, backend, offsets=offsets))


@_accumulate.register_fake
def _(
    aggregate: Tensor,
    client: Tensor,
    base: Tensor | None,
    weight: float,
    offsets: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    layers = 0 if offsets is None else offsets.shape[0] - 1
    return aggregate.new_empty((5, layers), dtype=torch.float64)


@custom_op("fedtlu::aggregate", mutates_args=("out",))
def _aggregate(
    out: Tensor,
    clients: Sequence[Tensor],
    weights: Tensor,
    offsets: Tensor,
    base: Tensor | None = None,
    client_stats: str = _NOTHING,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    _rows_of(client_stats)
    wanted: bool | Literal["norms"] = "norms" if client_stats == _NORMS else client_stats == _MOMENTS
    _, moments, each = dispatch.aggregate(
        clients,
        weights,
        offsets,
        base=base,
        out=out,
        client_stats=wanted,
        backend=backend,
    )
    if each is None:
        rows = out.new_empty((0, len(clients), offsets.numel() - 1), dtype=torch.float64)
    else:
        rows = (
            each[None].clone(memory_format=torch.contiguous_format)
            if isinstance(each, Tensor)
            else _rows(each)
        )
    return _rows(moments), rows


@_aggregate.register_fake
def _(
    out: Tensor,
    clients: Sequence[Tensor],
    weights: Tensor,
    offsets: Tensor,
    base: Tensor | None = None,
    client_stats: str = _NOTHING,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    layers = offsets.shape[0] - 1
    each = (_rows_of(client_stats), len(clients), layers)
    return out.new_empty((5, layers), dtype=torch.float64), out.new_empty(each, dtype=torch.float64)


@custom_op("fedtlu::masked_apply_", mutates_args=("params",))
def _masked_apply(
    params: Tensor, delta: Tensor, offsets: Tensor, mask: Tensor, lr: float = 1.0, backend: str = "auto"
) -> None:
    dispatch.masked_apply_(params, delta, offsets, mask, lr, backend)


@_masked_apply.register_fake
def _(
    params: Tensor, delta: Tensor, offsets: Tensor, mask: Tensor, lr: float = 1.0, backend: str = "auto"
) -> None:
    return None


def _rows_of(client_stats: str) -> int:
    """Returns how many rows are asked of every client's layers."""
    if client_stats not in _ROWS:
        raise not_one_of("client_stats", client_stats, list(_ROWS))
    return _ROWS[client_stats]


def _rows(moments: Moments) -> Tensor:
    """Returns the moments as one tensor that shares no memory with anything else."""
    return moments.rows.clone(memory_format=torch.contiguous_format)


# --- what `dispatch` calls in traced code --------------------------------------------------------


def layer_stats(delta: Tensor, offsets: Tensor, backend: str) -> Moments:
    """See `dispatch.layer_stats`."""
    return _moments(torch.ops.fedtlu.layer_stats(delta.detach(), offsets, backend))


def layer_stats_list(tensors: Sequence[Tensor], backend: str) -> Moments:
    """See `dispatch.layer_stats_list`."""
    return _moments(torch.ops.fedtlu.layer_stats_list([tensor.detach() for tensor in tensors], backend))


def accumulate_(
    aggregate: Tensor,
    client: Tensor,
    base: Tensor | None,
    weight: float,
    backend: str,
    offsets: Tensor | None,
) -> Moments | None:
    """See `dispatch.accumulate_`."""
    base = None if base is None else base.detach()
    rows = torch.ops.fedtlu.accumulate_(aggregate, client.detach(), base, float(weight), offsets, backend)
    return None if offsets is None else _moments(rows)


def aggregate(
    clients: Tensor | Iterable[Tensor],
    weights: Tensor | Iterable[float],
    offsets: Tensor,
    base: Tensor | None,
    out: Tensor | None,
    client_stats: bool | Literal["norms"],
    backend: str,
) -> tuple[Tensor, Moments, Moments | Tensor | None]:
    """See `dispatch.aggregate`."""
    vectors = [client.detach() for client in clients]
    if not isinstance(weights, Tensor):
        weights = torch.tensor(list(weights), dtype=torch.float64)
    if out is None:
        first = vectors[0]
        out = torch.empty(first.shape, dtype=checks.TARGETS[first.dtype], device=first.device)
    asked = checks.client_stats(client_stats)
    wanted = asked if isinstance(asked, str) else _MOMENTS if asked else _NOTHING
    base = None if base is None else base.detach()
    rows, each = torch.ops.fedtlu.aggregate(out, vectors, weights, offsets, base, wanted, backend)
    if wanted == _NOTHING:
        return out, _moments(rows), None
    return out, _moments(rows), each[0] if wanted == _NORMS else _moments(each)


def masked_apply_(
    params: Tensor, delta: Tensor, offsets: Tensor, mask: Tensor, lr: float, backend: str
) -> None:
    """See `dispatch.masked_apply_`."""
    torch.ops.fedtlu.masked_apply_(params, delta.detach(), offsets, mask, float(lr), backend)


def _moments(rows: Tensor) -> Moments:
    return Moments(rows)
