"""`aggregate`: sums many clients' vectors in one pass, with the statistics that scoring needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard

from torch import Tensor

from fedtlu_fast.errors import InputError, check_kind
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.ops import checks, derived, dispatch
from fedtlu_fast.ops.moments import Moments
from fedtlu_fast.scoring import LayerStats
from fedtlu_fast.torch_state import without_modes


@dataclass(frozen=True)
class Aggregate:
    """The weighted mean, or the weighted sum, of K clients' changes.

    Attributes:
        change: [P], float32 (float64 for float64 clients).
        stats: [L], statistics of the layers of the change.
        client_stats: [K, L], statistics of the layers of every client's change; None unless the caller asked
            for them.
        client_norms: [K, L] float64, L2 norms of the layers of every client's change; None unless the caller
            asked for "norms".
    """

    change: Tensor
    stats: LayerStats
    client_stats: LayerStats | None
    client_norms: Tensor | None = None


@without_modes
def aggregate(
    clients: Tensor | Iterable[Tensor],
    weights: Tensor | Iterable[float],
    layout: ParameterLayout,
    *,
    normalize: bool = True,
    base: Tensor | None = None,
    out: Tensor | None = None,
    client_stats: bool | Literal["norms"] = False,
    backend: str = "auto",
) -> Aggregate:
    """Computes the weighted mean of K clients' changes and its statistics in one pass over the clients.

    The mean is ``dW = sum_k s_k (clients[k] - base)`` with ``s_k = weights[k] / sum(weights)``. It is summed
    in float64 in the order of the clients and rounded once, so that it has the same bits on every backend and
    for any number of threads; on GPUs whose float64 is slow the last digit of float32 may differ. Use
    `WeightedMean` for clients that arrive one at a time.

    Args:
        clients: [K, P], or K vectors [P]; float32, bfloat16, float16 or float64, all on one device.
        weights: [K], 0 or more; in FedAvg the clients' numbers of samples n_k (arXiv 1602.05629).
        layout: the places of the layers in a vector.
        normalize: whether the weights are divided by their sum. False takes them as they are, also negative
            ones; the result is then a weighted sum and not a mean.
        base: [P], of the clients' dtype, the vector with which the clients started; None: the vectors are
            changes.
        out: [P], the vector that receives the result; it may be one of the clients. None: a new vector.
        client_stats: whether the pass also computes every client's statistics. With a `base`, they are
            statistics of ``clients[k] - base`` rounded to the dtype of `out`. "norms" computes the L2 norms
            only, which costs less: all that clipping and most selectors need.
        backend: ``auto``, ``reference``, ``native`` or ``triton``.

    Raises:
        InputError: the arguments do not fit together; or `normalize` is True and a weight is negative, or all
            are 0.
        BackendUnavailableError: the named backend cannot run here.

    Examples:
        >>> import torch
        >>> layout = ParameterLayout.from_module(torch.nn.Linear(2, 1))
        >>> found = aggregate(torch.tensor([[1.0, 2.0, 3.0], [5.0, 2.0, 1.0]]), [30, 10], layout)
        >>> found.change.tolist(), found.stats.mean.tolist()
        ([2.0, 2.0, 2.5], [2.0, 2.5])
    """
    check_kind("layout", layout, ParameterLayout, "a ParameterLayout")
    if not _fit(clients, (layout.size,)):
        clients = checks.vectors("clients", clients)
        # All rows of a matrix have the same length, so one is enough.
        for index, client in enumerate(clients[:1] if isinstance(clients, Tensor) else clients):
            if client.shape != (layout.size,):
                raise InputError(
                    f"clients[{index}].shape", tuple(client.shape), f"({layout.size},), as in the layout"
                )
    shares = checks.numbers("weights", weights, len(clients))
    if normalize:
        shares = normalized(shares)
    change, moments, each = dispatch.aggregate(
        clients, shares, layout.offsets, base=base, out=out, client_stats=client_stats, backend=backend
    )
    return Aggregate(
        change=change,
        stats=LayerStats.from_moments(layout.names, moments),
        client_stats=LayerStats.from_moments(layout.names, each) if isinstance(each, Moments) else None,
        client_norms=derived.root(each) if isinstance(each, Tensor) else None,
    )


def _fit(clients: object, shape: tuple[int]) -> TypeGuard[Tensor | list[Tensor] | tuple[Tensor, ...]]:
    """Tells whether these are tensors of the layout's shape, so that the operation's own checks are enough.

    A matrix fits if it has rows of this shape. False for other things, and for tensors without a shape.
    """
    try:
        if isinstance(clients, Tensor):
            return clients.shape[1:] == shape and len(clients) > 0
        if not isinstance(clients, (list, tuple)) or not clients:
            return False
        return all(isinstance(client, Tensor) and client.shape == shape for client in clients)
    except RuntimeError:  # nested tensors
        return False


def normalized(weights: Sequence[float]) -> list[float]:
    """Divides weights [K] by their sum; if the sum would overflow, the weights are scaled first.

    Raises:
        InputError: a weight is negative, or all are 0.
    """
    if min(weights, default=0) < 0:
        least = min(weights)
        raise InputError("weights", least, "numbers from 0 on", "normalize=False takes any finite numbers.")
    if not any(weights):
        raise InputError(
            "weights", list(weights), "at least one above 0", "normalize=False takes any finite numbers."
        )
    try:
        total = math.fsum(weights)
    except OverflowError:
        largest = max(weights)
        return normalized([weight / largest for weight in weights])
    return [weight / total for weight in weights]
