"""Runs the operations in C++ on CPU tensors, without copies, in ``torch.get_num_threads()`` threads.

The functions are those of `reference`. Before a call, `dispatch` checks the arguments and makes the tensors
flat and contiguous. The bits do not depend on the number of threads or on the machine's SIMD level (the
environment variable ``FEDTLU_SIMD`` forces one).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.ops.moments import Moments

try:
    from fedtlu_fast import _native
except ImportError as error:
    raise ImportError(
        f"the C++ extension was not built or does not load ({error}); reinstall with FEDTLU_BUILD=1 and a "
        "C++17 compiler to see why"
    ) from error

try:
    _native.simd_level()
except ValueError as error:
    levels = ", ".join(_native.simd_levels())
    asked = os.environ.get("FEDTLU_SIMD")
    raise InputError("FEDTLU_SIMD", asked, f"a SIMD level of this machine ({levels}), or unset") from error

extension = _native
"""The C++ extension. Other modules import it from here, so that they get the same error if it is missing."""

# NumPy lacks bfloat16, so both 16-bit types are passed as integers together with their dtype's name.
_NAMES = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float64: "float64",
}

# Tensors with fewer elements are copied into one tensor, which costs less than one array object each.
_SMALL = 8192


def layer_stats(delta: Tensor, offsets: Tensor) -> Moments:
    """See `reference.layer_stats`."""
    return _moments(_flat_stats(delta, offsets))


def layer_stats_list(tensors: Sequence[Tensor]) -> Moments:
    """See `reference.layer_stats_list`."""
    sizes = [tensor.numel() for tensor in tensors]
    small = [index for index, size in enumerate(sizes) if size < _SMALL]
    dtypes = {tensor.dtype for tensor in tensors}
    if len(small) == len(tensors) and len(dtypes) == 1:
        return _moments(_gathered_stats(tensors, sizes))
    out = np.empty((5, len(tensors)))
    for dtype in dtypes:
        rows = [index for index in small if tensors[index].dtype == dtype]
        out[:, rows] = _gathered_stats([tensors[row] for row in rows], [sizes[row] for row in rows])
    large = [index for index, size in enumerate(sizes) if size >= _SMALL]
    chosen = [tensors[index] for index in large]
    names = [_NAMES[tensor.dtype] for tensor in chosen]
    arrays = [_array(tensor) for tensor in chosen]
    out[:, large] = _native.layer_stats_list(arrays, names, torch.get_num_threads())
    return _moments(out)


def accumulate_(
    aggregate: Tensor, client: Tensor, base: Tensor | None, weight: float, offsets: Tensor | None = None
) -> Moments | None:
    """See `reference.accumulate_`."""
    found = _native.accumulate_(
        _array(aggregate),
        _array(client),
        None if base is None else _array(base),
        _NAMES[client.dtype],
        weight,
        None if offsets is None else offsets.contiguous().numpy(),
        torch.get_num_threads(),
    )
    return None if found is None else _moments(found)


def aggregate(
    out: Tensor,
    clients: Sequence[Tensor],
    weights: Tensor,
    base: Tensor | None,
    offsets: Tensor,
    client_stats: bool | Literal["norms"],
) -> tuple[Moments, Moments | Tensor | None]:
    """See `reference.aggregate`."""
    found, each = _native.aggregate(
        _array(out),
        [_array(client) for client in clients],
        weights.numpy(),
        None if base is None else _array(base),
        _NAMES[clients[0].dtype],
        offsets.contiguous().numpy(),
        client_stats,
        torch.get_num_threads(),
    )
    if each is None:
        return _moments(found), None
    of_clients = torch.from_numpy(each)
    return _moments(found), of_clients if client_stats == "norms" else Moments(*of_clients.unbind(1))


def masked_apply_(params: Tensor, delta: Tensor, offsets: Tensor, mask: Tensor, lr: float) -> None:
    """See `reference.masked_apply_`."""
    _native.masked_apply_(
        _array(params),
        _array(delta),
        offsets.contiguous().numpy(),
        mask.contiguous().numpy(),
        _NAMES[delta.dtype],
        lr,
        torch.get_num_threads(),
    )


def _gathered_stats(tensors: Sequence[Tensor], sizes: Sequence[int]) -> NDArray[np.float64]:
    """Returns the moments [5, L] of small tensors of one dtype."""
    if not tensors:
        return np.empty((5, 0))
    offsets = torch.zeros(len(sizes) + 1, dtype=torch.int64)
    torch.cumsum(torch.tensor(sizes), 0, out=offsets[1:])
    return _flat_stats(torch.cat(list(tensors)), offsets)


def _flat_stats(delta: Tensor, offsets: Tensor) -> NDArray[np.float64]:
    name = _NAMES[delta.dtype]
    return _native.layer_stats(_array(delta), name, offsets.contiguous().numpy(), torch.get_num_threads())


def _array(tensor: Tensor) -> NDArray[np.generic]:
    """Returns the tensor's memory as a NumPy array, without a copy."""
    return (tensor.view(torch.int16) if tensor.element_size() == 2 else tensor).numpy()


def _moments(columns: NDArray[np.float64]) -> Moments:
    return Moments(*torch.from_numpy(columns).unbind(0))
