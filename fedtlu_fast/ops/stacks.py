"""The operations on the stack of a cohort's vectors, which robust aggregation rules need.

Like those of `dispatch`, each checks its arguments and calls the chosen backend. They take float32 only: a
client's parameters.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.ops import checks
from fedtlu_fast.ops.backends import resolve

_ALIGNMENT = 4


def sorted_mean(
    clients: Tensor | Iterable[Tensor],
    first: int,
    last: int,
    *,
    base: Tensor | None = None,
    out: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Computes the mean of the values number `first` to ``last - 1``, in ascending order, of every column.

    `reference.sorted_mean` defines the operation. Every backend gives the same bits, whatever the order of
    the clients.

    Args:
        clients: [K, P], or K vectors [P]; float32.
        first: the first place in the order, from 0.
        last: the place behind the last one, at most K.
        base: [P] float32, is subtracted from every client; None if the clients already are changes.
        out: [P] float32, receives the means; None makes a new vector.
        backend: one of `backends.NAMES`.

    Raises:
        InputError: There are no clients; shapes, dtypes or devices do not fit; or the places are none of K,
            or no whole numbers.
        BackendUnavailableError: See `backends.resolve`.
    """
    rows = _rows(clients)
    first, last = _place("first", first), _place("last", last)
    if not 0 <= first < last <= len(rows):
        raise InputError("first", (first, last), f"0 <= first < last <= {len(rows)}, the number of clients")
    base = None if base is None else _vector("base", base, rows[0])
    out = torch.empty_like(rows[0]) if out is None else out
    checks.check_target("out", out)
    checks.check_like("out", out, rows[0])
    for index, row in enumerate(rows):
        checks.check_apart(f"clients[{index}]", row, "out", out)
    if base is not None:
        checks.check_apart("base", base, "out", out)
    resolve(backend, out.device.type).sorted_mean(out.detach(), rows, base, first, last)
    checks.changed(out)
    return out


def squared_distances(
    clients: Tensor | Iterable[Tensor], backend: str = "auto", *, chosen: Sequence[int] | None = None
) -> Tensor:
    """Computes ``||clients[i] - clients[j]||^2`` for the chosen i and every j.

    See `reference.squared_distances`. A distance has the same bits whichever clients are chosen.

    Args:
        clients: [K, P], or K vectors [P]; float32.
        backend: one of `backends.NAMES`.
        chosen: C different places among the clients; None for all of them, in order.

    Returns:
        [C, K] float64, on the CPU.

    Raises:
        InputError: There are no clients; shapes, dtypes or devices do not fit; or a place is none of K, is
            chosen twice, or is no whole number.
        BackendUnavailableError: See `backends.resolve`.
    """
    rows = _rows(clients)
    places = [_place("chosen", each) for each in (range(len(rows)) if chosen is None else chosen)]
    if len(set(places)) < len(places) or not set(places) <= set(range(len(rows))):
        raise InputError("chosen", places, f"different places from 0 to {len(rows) - 1}")
    found: Tensor = resolve(backend, rows[0].device.type).squared_distances(rows, places)
    return found


def squared_distance_bounds(
    clients: Tensor | Iterable[Tensor], backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Computes lower and upper bounds of all squared distances; see `reference.squared_distance_bounds`.

    The C++ backend takes a fraction of the time of `squared_distances`; its bounds are 5e-6 of the distance
    apart, and hold for the bits that `squared_distances` returns on the same backend.

    Args:
        clients: [K, P], or K vectors [P]; float32.
        backend: one of `backends.NAMES`.

    Returns:
        Two matrices [K, K] float64, on the CPU.

    Raises:
        InputError: There are no clients, or shapes, dtypes or devices do not fit.
        BackendUnavailableError: See `backends.resolve`.
    """
    rows = _rows(clients)
    found: tuple[Tensor, Tensor] = resolve(backend, rows[0].device.type).squared_distance_bounds(rows)
    return found


def squared_distances_from(
    clients: Tensor | Iterable[Tensor], base: Tensor, centre: Tensor | None = None, backend: str = "auto"
) -> Tensor:
    """Computes ``||clients[k] - base - centre||^2`` in one pass; see `reference.squared_distances_from`.

    Args:
        clients: [K, P], or K vectors [P]; float32.
        base: [P] float32.
        centre: [P] float32; None for zeros.
        backend: one of `backends.NAMES`.

    Returns:
        [K] float64, on the CPU.

    Raises:
        InputError: There are no clients, or shapes, dtypes or devices do not fit.
        BackendUnavailableError: See `backends.resolve`.
    """
    rows = _rows(clients)
    base = _vector("base", base, rows[0])
    centre = None if centre is None else _vector("centre", centre, rows[0])
    found: Tensor = resolve(backend, base.device.type).squared_distances_from(rows, base, centre)
    return found


def _place(field: str, given: Any) -> int:
    try:
        return operator.index(given)
    except TypeError:
        raise InputError(field, given, "a whole number, the place of a client from 0") from None


def _rows(clients: Tensor | Iterable[Tensor]) -> list[Tensor]:
    given = checks.vectors("clients", clients)
    checks.check_dtype("clients[0]", given[0], (torch.float32,))
    rows = list(given.detach().unbind(0)) if isinstance(given, Tensor) else given
    return [_vector(f"clients[{index}]", row, rows[0]) for index, row in enumerate(rows)]


def _vector(field: str, given: Tensor, like: Tensor) -> Tensor:
    """Returns a vector that the kernels can read: float32, contiguous and aligned."""
    vector = checks.readable(field, given).detach()
    checks.check_flat(field, vector, (torch.float32,))
    checks.check_like(field, vector, like)
    vector = vector.contiguous()
    return vector.clone() if vector.data_ptr() % _ALIGNMENT else vector
