"""`aggregate`: many clients' vectors in one pass, and what scoring and selection want to know about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.ops import dispatch
from fedtlu_fast.stats import LayerStats


@dataclass(frozen=True)
class Aggregate:
    """The weighted sum of K clients' changes.

    Attributes:
        change: [P], float32 (float64 for float64 clients).
        stats: of its layers, [L].
        client_stats: of the layers of every client's change, [K, L]; None if they were not asked for.
    """

    change: Tensor
    stats: LayerStats
    client_stats: LayerStats | None


def aggregate(
    clients: Tensor | Sequence[Tensor],
    weights: Tensor | Sequence[float],
    layout: ParameterLayout,
    *,
    base: Tensor | None = None,
    out: Tensor | None = None,
    client_stats: bool = False,
    backend: str = "auto",
) -> Aggregate:
    """``dW = sum_k weights[k] * (clients[k] - base)`` with its layers' statistics, reading every client once.

    The sum is taken in float64 in the order of the clients and rounded once: the same bits on every
    backend and any number of threads. Use `WeightedMean` where the clients come one at a time.

    Args:
        clients: [K, P], or K vectors [P]; float32, bfloat16, float16 or float64, all on one device.
        weights: K numbers; n_k / sum(n) for FedAvg (arXiv 1602.05629).
        layout: where the layers lie.
        base: [P], of the clients' dtype, what they started from; None when they already are changes.
        out: [P], where the change goes; it may be one of the clients. None for a new vector.
        client_stats: also find every client's statistics, in the same pass: what client-side selection
            and the analysis of attacks need. With a `base` they are of ``clients[k] - base`` rounded to
            the dtype of `out`.
        backend: ``auto``, ``reference``, ``native`` or ``triton``.

    Raises:
        InputError: what was given does not fit together.
        BackendUnavailableError: the backend named cannot run here.

    Example:
        >>> import torch
        >>> layout = ParameterLayout.from_module(torch.nn.Linear(2, 1))
        >>> found = aggregate(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), [0.5, 0.5], layout)
        >>> found.change.tolist(), found.stats.mean.tolist()
        ([2.0, 2.0, 2.0], [2.0, 2.0])
    """
    # Of a matrix one row tells for all; `dispatch` tells of one that is none.
    for index, client in enumerate(clients[:1] if isinstance(clients, Tensor) else clients):
        if client.shape != (layout.size,):
            raise InputError(
                f"clients[{index}].shape", tuple(client.shape), f"({layout.size},), as in the layout"
            )
    change, moments, each = dispatch.aggregate(
        clients, weights, layout.offsets, base=base, out=out, client_stats=client_stats, backend=backend
    )
    return Aggregate(
        change=change,
        stats=LayerStats.from_moments(layout.names, moments),
        client_stats=None if each is None else LayerStats.from_moments(layout.names, each),
    )
