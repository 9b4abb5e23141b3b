"""The metrics by which clients rank blocks: norms of the mean gradient g on their data (arXiv 2408.15600).

    gradnorm   ||g||            the paper's gain g_il
    rgn        ||g|| / ||w||    relative gradient norm; w: the block's global parameters
    snr        mean(g)^2 / var(g)

A block is taken as one long layer (the paper does not say how its layers' numbers become one).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.stats import LayerStats

GradientMetric = Literal["gradnorm", "rgn", "snr"]


def measure_gradients(
    metric: GradientMetric, layout: ParameterLayout, stats: LayerStats, weights: LayerStats
) -> NDArray[np.float64]:
    """The metric's value for every block of K clients' gradients, [K, B].

    A block whose gradient holds NaN or Inf gets NaN, and no selector chooses it. A block for which the
    metric's divisor is 0 (a constant gradient, a block of zeros) gets 0, so that none is chosen for being
    degenerate.

    Args:
        metric: see the module's docstring.
        layout: layers and blocks.
        stats: [K, L], statistics of the clients' gradients.
        weights: [L], statistics of the global parameters.
    """
    stats, weights = stats.cpu(), weights.cpu()
    columns = [_block(metric, stats, weights, list(block.layers)) for block in layout.blocks]
    found: NDArray[np.float64] = torch.stack(columns, dim=-1).numpy()
    return found


def _block(metric: GradientMetric, stats: LayerStats, weights: LayerStats, layers: list[int]) -> Tensor:
    """[K]."""
    square = stats.l2[:, layers].square().sum(dim=1)
    if metric == "gradnorm":
        return square.sqrt()
    if metric == "rgn":
        return _ratio(square.sqrt(), weights.l2[layers].square().sum().sqrt())
    count = stats.count[:, layers].double()
    total = count.sum(dim=1)
    mean = (count * stats.mean[:, layers]).sum(dim=1) / total
    spread = stats.std[:, layers].square() + (stats.mean[:, layers] - mean[:, None]).square()
    return _ratio(mean.square(), (count * spread).sum(dim=1) / total)


def _ratio(value: Tensor, divisor: Tensor) -> Tensor:
    found = value / divisor
    return torch.where(divisor > 0, found, torch.where(value.isnan() | divisor.isnan(), torch.nan, 0.0))
