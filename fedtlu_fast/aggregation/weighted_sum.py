"""`aggregate`: many clients' vectors in one pass, and what scoring and selection want to know about them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from fedtlu_fast.errors import InputError, check_kind
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.ops import checks, dispatch
from fedtlu_fast.scoring import LayerStats
from fedtlu_fast.torch_state import without_modes


@dataclass(frozen=True)
class Aggregate:
    """The weighted mean, or the weighted sum, of K clients' changes.

    Attributes:
        change: [P], float32 (float64 for float64 clients).
        stats: of its layers, [L].
        client_stats: of the layers of every client's change, [K, L]; None if they were not asked for.
    """

    change: Tensor
    stats: LayerStats
    client_stats: LayerStats | None


@without_modes
def aggregate(
    clients: Tensor | Iterable[Tensor],
    weights: Tensor | Iterable[float],
    layout: ParameterLayout,
    *,
    normalize: bool = True,
    base: Tensor | None = None,
    out: Tensor | None = None,
    client_stats: bool = False,
    backend: str = "auto",
) -> Aggregate:
    """``dW = sum_k s_k (clients[k] - base)``, ``s_k = weights[k] / sum(weights)``, reading every client once.

    The statistics of its layers come out of the same pass. The sum is taken in float64 in the order of the
    clients and rounded once: the same bits on every backend and any number of threads. Use
    `WeightedMean` where the clients come one at a time.

    Args:
        clients: [K, P], or K vectors [P]; float32, bfloat16, float16 or float64, all on one device.
        weights: K numbers from 0 on; the clients' sample counts n_k for FedAvg (arXiv 1602.05629).
        layout: where the layers lie.
        normalize: divide the weights by their sum. False takes them as they are, whatever their sign: the
            change is then a weighted sum, which K sample counts make as large as all samples together.
        base: [P], of the clients' dtype, what they started from; None when they already are changes.
        out: [P], where the change goes; it may be one of the clients. None for a new vector.
        client_stats: also find every client's statistics, in the same pass: what client-side selection
            and the analysis of attacks need. With a `base` they are of ``clients[k] - base`` rounded to
            the dtype of `out`.
        backend: ``auto``, ``reference``, ``native`` or ``triton``.

    Raises:
        InputError: what was given does not fit together; or, unless `normalize` is False, weights of which
            one is negative or all are 0.
        BackendUnavailableError: the backend named cannot run here.

    Example:
        >>> import torch
        >>> layout = ParameterLayout.from_module(torch.nn.Linear(2, 1))
        >>> found = aggregate(torch.tensor([[1.0, 2.0, 3.0], [5.0, 2.0, 1.0]]), [30, 10], layout)
        >>> found.change.tolist(), found.stats.mean.tolist()
        ([2.0, 2.0, 2.5], [2.0, 2.5])
    """
    check_kind("layout", layout, ParameterLayout, "a ParameterLayout")
    clients = checks.vectors("clients", clients)
    shares = checks.numbers("weights", weights, len(clients))
    if normalize:
        shares = normalized(shares)
    # Of a matrix one row stands for all.
    for index, client in enumerate(clients[:1] if isinstance(clients, Tensor) else clients):
        if client.shape != (layout.size,):
            raise InputError(
                f"clients[{index}].shape", tuple(client.shape), f"({layout.size},), as in the layout"
            )
    change, moments, each = dispatch.aggregate(
        clients, shares, layout.offsets, base=base, out=out, client_stats=client_stats, backend=backend
    )
    return Aggregate(
        change=change,
        stats=LayerStats.from_moments(layout.names, moments),
        client_stats=None if each is None else LayerStats.from_moments(layout.names, each),
    )


def normalized(weights: Tensor) -> Tensor:
    """Weights [K], float64, divided by their sum; weights whose sum float64 cannot hold are scaled first.

    Raises:
        InputError: one of them is negative, or all are 0.
    """
    given: list[float] = weights.tolist()
    if any(weight < 0 for weight in given):
        least = min(given)
        raise InputError("weights", least, "numbers from 0 on", "normalize=False takes any finite numbers.")
    if not any(given):
        raise InputError(
            "weights", given, "at least one above 0", "normalize=False takes any finite numbers."
        )
    try:
        return weights / math.fsum(given)
    except OverflowError:
        return normalized(weights / max(given))
