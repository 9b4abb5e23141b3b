"""Runs the operations in Triton kernels on an NVIDIA GPU; the functions are those of `reference`.

Each operation is queued on the current stream of the tensors' device; no function waits for the GPU, and
results stay on it. If TRITON_INTERPRET=1 is set before Triton is imported, the kernels run in Python on CPU
tensors instead, slowly and only for tests. To capture an operation in a CUDA graph, run it once beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.errors import BackendUnavailableError
from fedtlu_fast.ops.moments import Moments, squared_norms

try:
    import triton as _triton
except ImportError as error:
    raise ImportError("Triton is not installed; on Linux: pip install 'fedtlu-fast[gpu]'") from error

from fedtlu_fast.kernels.accumulate import accumulate, accumulate_kernel, accumulate_moments
from fedtlu_fast.kernels.aggregate import aggregate as aggregate_moments
from fedtlu_fast.kernels.columns import sorted_mean as mean_of_columns
from fedtlu_fast.kernels.distances import squared_distances as distances_of
from fedtlu_fast.kernels.distances_from import squared_distances_from as distances_from
from fedtlu_fast.kernels.layer_stats import layer_moments
from fedtlu_fast.kernels.masked_apply import masked_apply
from fedtlu_fast.kernels.pairs import use_pairs as use_pairs
from fedtlu_fast.kernels.tiles import Layers

# Triton decides on its interpreter when the kernels are defined; the environment may change later.
_INTERPRETED = not isinstance(accumulate_kernel, _triton.JITFunction)


def devices() -> tuple[str, ...]:
    """Returns the device types whose tensors the kernels take now."""
    if _INTERPRETED:
        return ("cpu",)
    return ("cuda",) if torch.cuda.is_available() else ()


def layer_stats(delta: Tensor, offsets: Tensor) -> Moments:
    """See `reference.layer_stats`."""
    _check_live(delta)
    delta = delta.contiguous()
    layers = _layers(offsets)
    moments = delta.new_empty((5, len(layers.lengths)), dtype=torch.float64)
    with _device_of(delta):
        layer_moments(delta, layers, moments)
    return Moments(moments)


def layer_stats_list(tensors: Sequence[Tensor]) -> Moments:
    """See `reference.layer_stats_list`; the tensors are read where they are, without copies."""
    if not tensors:
        return Moments(torch.empty(5, 0, dtype=torch.float64))
    _check_live(tensors[0])
    tensors = [tensor if tensor.is_contiguous() else tensor.contiguous() for tensor in tensors]
    moments = tensors[0].new_empty((5, len(tensors)), dtype=torch.float64)
    with _device_of(moments):
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            columns = [column for column, tensor in enumerate(tensors) if tensor.dtype == dtype]
            group = [tensors[column] for column in columns]
            origin = group[0]
            addresses = np.array([tensor.data_ptr() for tensor in group])
            starts = (addresses - origin.data_ptr()) // origin.element_size()
            lengths = np.array([tensor.numel() for tensor in group])
            layer_moments(origin, Layers(starts, lengths, np.array(columns)), moments)
    return Moments(moments)


def accumulate_(
    aggregate: Tensor, client: Tensor, base: Tensor | None, weight: float, offsets: Tensor | None = None
) -> Moments | None:
    """See `reference.accumulate_`; the bits are the same, but in pairs of float32 the last may differ."""
    _check_live(aggregate)
    client, base = client.contiguous(), None if base is None else base.contiguous()
    with _device_of(aggregate):
        if offsets is None:
            accumulate(aggregate, client, base, weight)
            return None
        return Moments(accumulate_moments(aggregate, client, base, weight, _layers(offsets)))


def aggregate(
    out: Tensor,
    clients: Sequence[Tensor],
    weights: Tensor,
    base: Tensor | None,
    offsets: Tensor,
    client_stats: bool | Literal["norms"],
) -> tuple[Moments, Moments | Tensor | None]:
    """See `reference.aggregate`; `out` is as in `accumulate_`."""
    _check_live(out)
    clients = [client.contiguous() for client in clients]
    base = None if base is None else base.contiguous()
    with _device_of(out):
        moments = aggregate_moments(
            out, clients, weights.contiguous(), base, _layers(offsets), bool(client_stats)
        )
    each = Moments(moments[:, 1:]) if client_stats else None
    return Moments(moments[:, 0]), squared_norms(each) if each and client_stats == "norms" else each


def masked_apply_(params: Tensor, delta: Tensor, offsets: Tensor, mask: Tensor, lr: float) -> None:
    """See `reference.masked_apply_`; the bits are as in `accumulate_`."""
    _check_live(params)
    layers, chosen = _layers(offsets), mask.numpy()
    with _device_of(params):
        masked_apply(params, delta.contiguous(), Layers(layers.starts[chosen], layers.lengths[chosen]), lr)


def sorted_mean(out: Tensor, clients: Sequence[Tensor], base: Tensor | None, first: int, last: int) -> None:
    """See `reference.sorted_mean`; the bits are the same."""
    _check_live(out)
    with _device_of(out):
        mean_of_columns(out, clients, base, first, last)


def squared_distances(clients: Sequence[Tensor], chosen: Sequence[int]) -> Tensor:
    """See `reference.squared_distances`."""
    _check_live(clients[0])
    with _device_of(clients[0]):
        found: Tensor = distances_of(clients, chosen)
        return found.cpu()


def squared_distance_bounds(clients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """See `reference.squared_distance_bounds`; the bounds are the distances themselves."""
    distances = squared_distances(clients, range(len(clients)))
    return distances, distances.clone()


def squared_distances_from(clients: Sequence[Tensor], base: Tensor, centre: Tensor | None) -> Tensor:
    """See `reference.squared_distances_from`."""
    _check_live(base)
    with _device_of(base):
        found: Tensor = distances_from(clients, base, centre)
        return found.cpu()


def _layers(offsets: Tensor) -> Layers:
    bounds = offsets.numpy()
    return Layers(starts=bounds[:-1], lengths=np.diff(bounds))


def _device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Makes the tensor's GPU the current one, because Triton launches kernels there."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _check_live(tensor: Tensor) -> None:
    if tensor.device.type not in devices():
        takes = " or ".join(devices()) or "no device of this machine"
        raise BackendUnavailableError(f"backend 'triton' takes tensors on {takes}, not on {tensor.device}")
