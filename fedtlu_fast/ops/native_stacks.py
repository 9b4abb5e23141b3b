"""Runs the operations on a cohort's stack in C++ (see `native`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedtlu_fast import _native


def sorted_mean(out: Tensor, clients: Sequence[Tensor], base: Tensor | None, first: int, last: int) -> None:
    """See `reference.sorted_mean`; the bits are the same."""
    rows = [client.numpy() for client in clients]
    origin = None if base is None else base.numpy()
    _native.sorted_mean(out.numpy(), rows, origin, first, last, torch.get_num_threads())


def squared_distances(clients: Sequence[Tensor], chosen: Sequence[int]) -> Tensor:
    """See `reference.squared_distances`."""
    taken = set(chosen)
    order = [*chosen, *(place for place in range(len(clients)) if place not in taken)]
    rows = [clients[place].numpy() for place in order]
    found = torch.from_numpy(_native.squared_distances(rows, len(chosen), torch.get_num_threads()))
    distances = torch.empty_like(found)
    distances[:, order] = found
    return distances


def squared_distance_bounds(clients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """See `reference.squared_distance_bounds`; from float32 arithmetic, with a proven bound of its error.

    The bounds, but not what they bound, depend on the SIMD level.
    """
    rows = [client.numpy() for client in clients]
    lower, upper = _native.squared_distance_bounds(rows, torch.get_num_threads())
    return torch.from_numpy(lower), torch.from_numpy(upper)


def squared_distances_from(clients: Sequence[Tensor], base: Tensor, centre: Tensor | None) -> Tensor:
    """See `reference.squared_distances_from`."""
    rows = [client.numpy() for client in clients]
    middle = None if centre is None else centre.numpy()
    return torch.from_numpy(
        _native.squared_distances_from(rows, base.numpy(), middle, torch.get_num_threads())
    )
