"""Computes every operation in plain float64 torch; the tests compare the other backends with it.

``auto`` takes this backend only if no faster one is live.

It runs on every device that torch supports. The fast backends (`native`, `triton`) have the same functions
with the same arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from fedtlu_fast.ops.moments import Moments

CACHED = 2**17
"""Number of elements that are compared at a time: 1 MiB of float64, which stays in a core's cache."""


def layer_stats(delta: Tensor, offsets: Tensor) -> Moments:
    """Computes the moments of every layer of a flat change.

    Args:
        delta: [P], float32/bfloat16/float16/float64; any stride.
        offsets: [L + 1], int64, on the CPU, non-decreasing; layer l is ``delta[offsets[l]:offsets[l + 1]]``.

    Returns:
        `Moments` of L layers.
    """
    bounds: list[int] = offsets.tolist()
    return layer_stats_list([delta[start:end] for start, end in pairwise(bounds)])


def layer_stats_list(tensors: Sequence[Tensor]) -> Moments:
    """Computes the moments of separate tensors of any shape and stride; each tensor is one layer."""
    rows = [_moments(tensor) for tensor in tensors]
    device = tensors[0].device if tensors else torch.device("cpu")
    columns = torch.tensor(rows, dtype=torch.float64, device=device).reshape(len(rows), 5)
    return Moments(columns.T)


def _moments(layer: Tensor) -> tuple[float, float, float, float, float]:
    count = layer.numel()
    if count == 0:
        return 0.0, 0.0, 0.0, 0.0, 0.0
    values = layer.detach().reshape(-1).double()
    nonfinite = count - int(torch.isfinite(values).sum())
    if nonfinite:
        nan = float("nan")
        return count, nan, nan, nan, nonfinite
    # Shifted by the first value: a constant layer then has exactly zero deviations.
    pivot = values[0]
    shifted = values - pivot
    shift = shifted.mean()
    m2 = (shifted - shift).square().sum()
    return count, float(pivot + shift), float(m2), float(values.abs().max()), 0.0


def accumulate_(
    aggregate: Tensor, client: Tensor, base: Tensor | None, weight: float, offsets: Tensor | None = None
) -> Moments | None:
    """Adds ``weight * (client - base)`` to `aggregate`; computes in float64 and rounds once.

    Args:
        aggregate: [P], float32 or float64, contiguous; changed in place.
        client: [P], on the device of `aggregate`; float32, bfloat16 or float16 for a float32 `aggregate`,
            float64 for a float64 one.
        base: [P], in the dtype and on the device of `client`; None if `client` already is a change.
        weight: the client's share, usually n_k / sum(n).
        offsets: [L + 1], int64, on the CPU (see `layer_stats`); None for no statistics.

    Returns:
        With `offsets`, the moments of the new `aggregate`, as `layer_stats` gives them; else None.
    """
    change = client.double() if base is None else client.double() - base.double()
    aggregate.copy_(aggregate.double() + weight * change)
    return None if offsets is None else layer_stats(aggregate, offsets)


def aggregate(
    out: Tensor,
    clients: Sequence[Tensor],
    weights: Tensor,
    base: Tensor | None,
    offsets: Tensor,
    client_stats: bool | Literal["norms"],
) -> tuple[Moments, Moments | Tensor | None]:
    """Computes ``out = sum_k weights[k] * (clients[k] - base)``, in float64 and in the order of the clients.

    Args:
        out: [P], float32 or float64, contiguous; receives the sum, rounded once. It may be one of the
            clients.
        clients: K vectors [P] of one dtype: float32, bfloat16 or float16 for a float32 `out`, else float64.
        weights: [K], float64, on the CPU.
        base: [P], in the dtype of the clients; None if the clients already are changes.
        offsets: [L + 1], int64, on the CPU (see `layer_stats`).
        client_stats: True for the moments of every client too, "norms" for its layers' squared norms.

    Returns:
        The moments of `out`, as `layer_stats` gives them; and, with `client_stats`, the moments [K, L] of
        every client's change: the client itself, or with `base` ``client - base`` rounded to the dtype of
        `out`. With "norms" they are instead the squared L2 norms [K, L] float64 of the change before it is
        rounded (a backend may round it first); NaN where a norm is not finite.
    """
    total = torch.zeros_like(out, dtype=torch.float64)
    rows: list[Moments] = []
    squares: list[Tensor] = []
    for client, weight in zip(clients, weights.tolist(), strict=True):
        change = client.double() if base is None else client.double() - base.double()
        total += weight * change
        if client_stats == "norms":
            squares.append(_squares(change, offsets))
        elif client_stats:
            rows.append(layer_stats(client if base is None else change.to(out.dtype), offsets))
    out.copy_(total)
    if client_stats == "norms":
        like = out.new_empty((0, offsets.numel() - 1), dtype=torch.float64)
        return layer_stats(out, offsets), torch.stack(squares) if squares else like
    return layer_stats(out, offsets), _stacked(rows, out, offsets) if client_stats else None


def _squares(change: Tensor, offsets: Tensor) -> Tensor:
    """Returns the layers' sums of squares [L] of a float64 vector; NaN where one is not finite."""
    bounds: list[int] = offsets.tolist()
    sums = [float(change[start:end].square().sum()) for start, end in pairwise(bounds)]
    found = torch.tensor(sums, dtype=torch.float64, device=change.device)
    return torch.where(found.isfinite(), found, torch.nan)


def _stacked(rows: Sequence[Moments], like: Tensor, offsets: Tensor) -> Moments:
    """Stacks K moments of shape [L] to moments of shape [K, L]."""
    if not rows:
        return Moments(like.new_empty((5, 0, offsets.numel() - 1), dtype=torch.float64))
    return Moments(torch.stack([row.rows for row in rows], dim=1))


def masked_apply_(params: Tensor, delta: Tensor, offsets: Tensor, mask: Tensor, lr: float) -> None:
    """Adds ``lr * delta[layer]`` to ``params[layer]`` where the mask is set; in float64, rounded once.

    The bits of every other layer stay as they are.

    Args:
        params: [P], float32 or float64, contiguous; changed in place.
        delta: [P], in the dtype and on the device of `params`.
        offsets: [L + 1], int64, on the CPU (see `layer_stats`).
        mask: [L], bool, on the CPU; true for the layers to change.
        lr: the server's learning rate.
    """
    bounds: list[int] = offsets.tolist()
    for layer in torch.nonzero(mask).flatten().tolist():
        start, end = bounds[layer], bounds[layer + 1]
        params[start:end] = (params[start:end].double() + lr * delta[start:end].double()).to(params.dtype)


def sorted_mean(out: Tensor, clients: Sequence[Tensor], base: Tensor | None, first: int, last: int) -> None:
    """Writes the mean of the values number `first` to ``last - 1``, in ascending order, of every column.

    The values are summed in float64, from the smallest to the largest, and the mean is rounded once. NaN
    comes after all numbers, so that a few NaN among many values matter only if their places are averaged.

    Args:
        out: [P], float32, contiguous; receives the means. It may be one of the clients.
        clients: K vectors [P], float32.
        base: [P], float32; ``clients[k] - base``, rounded to float32, is sorted. None if the clients already
            are changes.
        first: the first place in the order, from 0.
        last: the place behind the last one, at most K.
    """
    changes = torch.stack(list(clients)) if base is None else torch.stack(list(clients)) - base
    total = torch.zeros_like(out, dtype=torch.float64)
    for row in changes.sort(dim=0).values[first:last]:
        total += row.double()
    out.copy_(total / (last - first))


def squared_distances(clients: Sequence[Tensor], chosen: Sequence[int]) -> Tensor:
    """Computes ``||clients[i] - clients[j]||^2`` for the chosen i and every j, by differences in float64.

    The Gram matrix, ``|x|^2 + |y|^2 - 2 x.y``, would lose more digits the closer two clients are: measured
    relative errors are 2e-16 to 5e-12 for honest changes, and 3e-2 for two changes of norm 5e4 at a distance
    of 8e-3. Here the error is 6e-16 for all of them. Equal clients have distance 0 and equal distances to
    all others, so that ties are exact.

    Args:
        clients: K vectors [P], float32.
        chosen: C different places among the clients.

    Returns:
        [C, K] float64, on the CPU. A distance has the same bits whichever clients are chosen, in both its
        places.
    """
    count = len(clients)
    above = torch.triu_indices(count, count, 1)
    found = torch.zeros(above.shape[1], dtype=torch.float64, device=clients[0].device)
    step = max(1, CACHED // count)
    for start in range(0, len(clients[0]), step):
        piece = torch.stack([client[start : start + step] for client in clients])
        found += torch.pdist(piece.double()).square()
    distances = torch.zeros(count, count, dtype=torch.float64)
    distances[above[0], above[1]] = found.cpu()
    return (distances + distances.T)[list(chosen)]


def squared_distance_bounds(clients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Computes bounds of all squared distances, which a backend may find faster than the distances.

    Returns:
        Two symmetric matrices [K, K] float64, on the CPU, with zeros on the diagonal: no element of
        ``squared_distances(clients, range(K))`` is below the first one's or above the second one's; all three
        are NaN in the same places. Here the bounds are the distances themselves.
    """
    distances = squared_distances(clients, range(len(clients)))
    return distances, distances.clone()


def squared_distances_from(clients: Sequence[Tensor], base: Tensor, centre: Tensor | None) -> Tensor:
    """Computes ``||clients[k] - (base + centre)||^2`` in float64, for every client.

    Args:
        clients: K vectors [P], float32.
        base: [P], float32.
        centre: [P], float32; None for zeros.

    Returns:
        [K] float64, on the CPU.
    """
    origin = base.double() if centre is None else base.double() + centre.double()
    return torch.stack([(client.double() - origin).square().sum() for client in clients]).cpu()
