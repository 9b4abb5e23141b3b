"""Runs the operations in C++ on CPU tensors, without copies, in ``torch.get_num_threads()`` threads.

The functions are those of `reference`. The extension checks all arguments itself, which takes a microsecond,
and takes plain tensors only (`csrc/python/tensors.h`). With others a function raises `NotPlainError`, and
`dispatch` says what is wrong with the arguments, or makes them plain and calls again. Versions of torch
before 2.10 do not let the extension read tensors: there `dispatch` always prepares the arguments, and they
are passed as NumPy arrays.

The bits do not depend on the number of threads or on the machine's SIMD level (the environment variable
``FEDTLU_SIMD`` forces one).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import NotImplementedType
from typing import Literal, TypeVar

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

from fedtlu_fast.ops.native_stacks import sorted_mean as sorted_mean
from fedtlu_fast.ops.native_stacks import squared_distance_bounds as squared_distance_bounds
from fedtlu_fast.ops.native_stacks import squared_distances as squared_distances
from fedtlu_fast.ops.native_stacks import squared_distances_from as squared_distances_from

extension = _native
"""The C++ extension. Other modules import it from here, so that they get the same error if it is missing."""

# NumPy lacks bfloat16, so both 16-bit types are passed as integers together with their dtype's name.
_NAMES = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float64: "float64",
}

READS_TENSORS = _native.learn_torch(torch)
"""Whether the extension can read torch's tensors, so that a function may be called with any arguments."""


Answer = TypeVar("Answer")


class NotPlainError(ValueError):
    """The extension does not take an argument as it is."""


def layer_stats(delta: Tensor, offsets: Tensor) -> Moments:
    """See `reference.layer_stats`."""
    threads = torch.get_num_threads()
    if READS_TENSORS:
        return _moments(_native.layer_stats_of(delta, offsets, threads))
    return _moments(_native.layer_stats(_array(delta), _NAMES[delta.dtype], offsets.numpy(), threads))


def layer_stats_list(tensors: Sequence[Tensor]) -> Moments:
    """See `reference.layer_stats_list`."""
    threads = torch.get_num_threads()
    if READS_TENSORS:
        return _moments(_native.layer_stats_of_list(tensors, threads))
    arrays, names = [_array(tensor) for tensor in tensors], [_NAMES[tensor.dtype] for tensor in tensors]
    return _moments(_native.layer_stats_list(arrays, names, threads))


def accumulate_(
    aggregate: Tensor, client: Tensor, base: Tensor | None, weight: float, offsets: Tensor | None = None
) -> Moments | None:
    """See `reference.accumulate_`."""
    threads = torch.get_num_threads()
    if READS_TENSORS:
        found = _native.accumulate_on(aggregate, client, base, weight, offsets, threads)
    else:
        start, bounds = None if base is None else _array(base), None if offsets is None else offsets.numpy()
        name = _NAMES[client.dtype]
        found = _native.accumulate_(_array(aggregate), _array(client), start, name, weight, bounds, threads)
    return None if found is None else _moments(found)


def aggregate(
    out: Tensor,
    clients: Tensor | Sequence[Tensor],
    weights: Tensor | Sequence[float],
    base: Tensor | None,
    offsets: Tensor,
    client_stats: bool | Literal["norms"],
) -> tuple[Moments, Moments | Tensor | None]:
    """See `reference.aggregate`; the clients may also be a matrix [K, P], and the weights a list or tuple."""
    threads = torch.get_num_threads()
    if READS_TENSORS:
        found, each = _taken(
            _native.aggregate_of(out, clients, weights, base, offsets, client_stats, threads)
        )
    else:
        arrays, shares = [_array(client) for client in clients], torch.as_tensor(weights).numpy()
        start, name = None if base is None else _array(base), _NAMES[clients[0].dtype]
        found, each = _native.aggregate(
            _array(out), arrays, shares, start, name, offsets.numpy(), client_stats, threads
        )
    if each is None:
        return _moments(found), None
    of_clients = torch.from_numpy(each)
    return _moments(found), of_clients if client_stats == "norms" else Moments(of_clients.transpose(0, 1))


def masked_apply_(params: Tensor, delta: Tensor, offsets: Tensor, mask: Tensor, lr: float) -> None:
    """See `reference.masked_apply_`."""
    threads = torch.get_num_threads()
    if not READS_TENSORS:
        bounds, chosen, name = offsets.numpy(), mask.numpy(), _NAMES[delta.dtype]
        _native.masked_apply_(_array(params), _array(delta), bounds, chosen, name, lr, threads)
    else:
        _taken(_native.masked_apply_on(params, delta, offsets, mask, lr, threads))


def spread(moments: Moments) -> Tensor:
    """See `derived.spread`; the bits are the same."""
    rows = moments.rows
    return _shaped(_taken(_native.spread_of(rows.contiguous(), torch.get_num_threads())), 1, rows)


def score(count: Tensor, mean: Tensor, std: Tensor, nonfinite: Tensor, ddof: int) -> tuple[Tensor, Tensor]:
    """See `derived.score`; the bits are the same."""
    rows, degenerate = _taken(_native.score_of(count, mean, std, nonfinite, ddof, torch.get_num_threads()))
    return _shaped(rows, 0, count), torch.from_numpy(degenerate).view(count.shape)


def _shaped(rows: NDArray[np.float64], first: int, like: Tensor) -> Tensor:
    """Returns rows [N, M] as a tensor [N, ...], of the shape of `like` from its dimension `first` on."""
    found = torch.from_numpy(rows)
    return found if like.dim() == first + 1 else found.view(len(found), *like.shape[first:])


def _array(tensor: Tensor) -> NDArray[np.generic]:
    """Returns the tensor's memory as a NumPy array, without a copy."""
    return (tensor.view(torch.int16) if tensor.element_size() == 2 else tensor).numpy()


def _taken(answer: Answer | NotImplementedType) -> Answer:
    """Returns the extension's answer; raises `NotPlainError` if it did not take the call."""
    if isinstance(answer, NotImplementedType):
        raise NotPlainError
    return answer


def _moments(found: NDArray[np.float64] | NotImplementedType) -> Moments:
    return Moments(torch.from_numpy(_taken(found)))
