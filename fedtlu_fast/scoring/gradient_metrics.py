"""The metrics by which clients rank blocks: norms of the mean gradient g on their data (arXiv 2408.15600).

    gradnorm   ||g||            the paper's gain g_il
    rgn        ||g|| / ||w||    relative gradient norm; w: the block's global parameters
    snr        mean(g)^2 / var(g)
    drift      ||d||            d: the client's change after training (FL4Health's layer exchange by norms)
    benefit    F(w) - F(w + d)  F: the loss on samples that the client keeps back (ours)

A metric is a function of `ClientVectors` and returns [K, B]. At a probe, before training, the vectors are
gradients; for a selector that chooses after training, they are the clients' changes. A function of your own
is given by its dotted name; ``block_metrics.asks("held_out")`` lets it look at samples that a client keeps
back. A block is treated as one long layer (ours: the paper does not say how its layers' numbers are
combined).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.memory import is_out_of_memory
from fedtlu_fast.registry import find
from fedtlu_fast.scoring.block_metrics import asks
from fedtlu_fast.scoring.held_out import HeldOut
from fedtlu_fast.scoring.statistics import LayerStats


@dataclass(frozen=True)
class ClientVectors:
    """The vectors of K clients, as a client metric sees them.

    Attributes:
        layout: the model's layers and blocks.
        stats: [K, L] float64 on the CPU, statistics of the clients' gradients or changes.
        weights: [L] float64 on the CPU, statistics of the global parameters.
        held_out: losses on the samples that the only client (K is 1) keeps back; None before training, and
            unless asked for.
    """

    layout: ParameterLayout
    stats: LayerStats
    weights: LayerStats
    held_out: HeldOut | None = None


def check_metrics(names: Sequence[str], field: str) -> None:
    """Checks that all names are client metrics.

    Args:
        names: names or dotted names.
        field: the setting that gives them, for the error.

    Raises:
        InputError: there is no metric of a name.
    """
    for name in names:
        find("client_metric", name, field)


def needs_held_out(names: Sequence[str]) -> bool:
    """Tells whether one of these client metrics needs losses on samples that clients keep back.

    Args:
        names: names or dotted names.

    Raises:
        InputError: there is no metric of a name.
    """
    found = (find("client_metric", name, "needs") for name in names)
    return any("held_out" in getattr(function, "asks", ()) for function in found)


def measure_gradients(
    metric: str,
    layout: ParameterLayout,
    stats: LayerStats,
    weights: LayerStats,
    held_out: HeldOut | None = None,
) -> NDArray[np.float64]:
    """Returns [K, B] float64, the metric's value for every block of K clients' vectors.

    A block whose gradient holds NaN or Inf gets NaN, and no selector chooses it. A block with a divisor of 0
    (a constant gradient, or a block of zeros) gets 0, so that it is not chosen for being degenerate.

    Args:
        metric: a name, or the dotted name of a function (see the top of this module).
        layout: the model's layers and blocks.
        stats: [K, L], statistics of the clients' vectors.
        weights: [L], statistics of the global parameters.
        held_out: see `ClientVectors`.

    Raises:
        InputError: there is no such metric, it raised an error, or its result does not have the shape [K, B].
    """
    vectors = ClientVectors(layout, stats.cpu(), weights.cpu(), held_out)
    function = find("client_metric", metric, "metric")
    try:
        found: NDArray[np.float64] = torch.as_tensor(function(vectors)).to(torch.float64).numpy()
    except InputError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise  # of a forward pass; the metric is not to blame
        raise InputError("metric", metric, f"a function of ClientVectors; {cause(error)}") from error
    expected = len(vectors.stats.l2), len(layout.blocks)
    if found.shape != expected:
        raise InputError("metric", found.shape, f"{metric} to return shape {expected}, a row a client")
    return found


def gradnorm(vectors: ClientVectors) -> Tensor:
    """Returns [K, B], ``||g||``."""
    return _columns(vectors, lambda layers: _square(vectors, layers).sqrt())


def drift(vectors: ClientVectors) -> Tensor:
    """Returns [K, B], ``||d||``, the distance that each block has moved."""
    return gradnorm(vectors)


@asks("held_out")
def benefit(vectors: ClientVectors) -> Tensor:
    """Returns [1, B], by how much the loss on samples that the client keeps back falls by each block (ours).

    One block of the client's own change is applied to the model from which it started, beside the blocks that
    it sends in any case. Costs a forward pass over the samples for each block, and one more.

    Raises:
        InputError: the client has not trained yet.
    """
    if vectors.held_out is None:
        raise InputError(
            "metric", "benefit", "a client's change after training, and samples that it keeps back"
        )
    loss = vectors.held_out.loss
    before = loss(())
    alone = [loss((block,)) for block in range(len(vectors.layout.blocks))]
    return before - torch.tensor([alone], dtype=torch.float64)


def rgn(vectors: ClientVectors) -> Tensor:
    """Returns [K, B], ``||g|| / ||w||``."""
    weights = vectors.weights.l2
    return _columns(
        vectors,
        lambda layers: _ratio(_square(vectors, layers).sqrt(), weights[layers].square().sum().sqrt()),
    )


def snr(vectors: ClientVectors) -> Tensor:
    """Returns [K, B], ``mean(g)^2 / var(g)``."""
    return _columns(vectors, lambda layers: _signal(vectors.stats, layers))


def _columns(vectors: ClientVectors, column: Callable[[Any], Tensor]) -> Tensor:
    return torch.stack([column(list(block.layers)) for block in vectors.layout.blocks], dim=-1)


def _square(vectors: ClientVectors, layers: list[int]) -> Tensor:
    """Returns [K], the squared norm of a block."""
    return vectors.stats.l2[:, layers].square().sum(dim=1)


def _signal(stats: LayerStats, layers: list[int]) -> Tensor:
    """Returns [K], squared mean over variance of a block, from the statistics of its layers."""
    count = stats.count[:, layers].double()
    total = count.sum(dim=1)
    mean = (count * stats.mean[:, layers]).sum(dim=1) / total
    spread = stats.std[:, layers].square() + (stats.mean[:, layers] - mean[:, None]).square()
    return _ratio(mean.square(), (count * spread).sum(dim=1) / total)


def _ratio(value: Tensor, divisor: Tensor) -> Tensor:
    found = value / divisor
    return torch.where(divisor > 0, found, torch.where(value.isnan() | divisor.isnan(), torch.nan, 0.0))
