"""Units of scoring: a *unit* is a layer, or a block that is treated as one long layer.

Norms and counts of units are vectors [L + B] float64 on the CPU: first the L layers, then the B blocks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring.statistics import LayerStats

ScoredLayers = Literal["all", "matrices", "vectors"]


def scored_layout(layout: ParameterLayout, scored: ScoredLayers) -> ParameterLayout:
    """Returns the layout with only the layers in its blocks that count in their scores.

    Args:
        layout: the model's layout.
        scored: ``all`` layers (as in the paper); ``matrices``, the layers of two dimensions or more,
            convolutions and embeddings included; or ``vectors``, the other layers, which are norms and
            biases. The last two are ours, to find out which layers decide the ranking. A block that is in no
            group may have no layer left; it gets -1.

    Raises:
        InputError: the blocks of a group have no such layer, so that they could not be compared.
    """
    if scored == "all":
        return layout
    wanted = [(len(layer.shape) > 1) == (scored == "matrices") for layer in layout.layers]
    blocks = [
        replace(block, layers=tuple(layer for layer in block.layers if wanted[layer]))
        for block in layout.blocks
    ]
    for group in layout.groups:
        if not all(blocks[block].layers for block in group.blocks):
            expected = f"all: the blocks of {group.name} hold no {scored}"
            raise InputError("selection.scored_layers", scored, expected)
    return replace(layout, blocks=tuple(blocks))


def root_counts(layout: ParameterLayout) -> Tensor:
    """Returns [L + B], sqrt(n) of every unit, the scale of l2_per_parameter."""
    counts = [*(layer.numel for layer in layout.layers), *layout.block_sizes()]
    return torch.tensor(counts, dtype=torch.float64).sqrt()


def unit_norms(stats: LayerStats, layout: ParameterLayout) -> Tensor:
    """Returns the L2 norm of every unit, [L + B], or [K, L + B] for the statistics of K clients."""
    layers = stats.cpu().l2
    blocks = [layers[..., list(block.layers)].square().sum(dim=-1).sqrt() for block in layout.blocks]
    return torch.cat([layers, torch.stack(blocks, dim=-1)], dim=-1)


def mean_client_norms(
    total: NDArray[np.float64] | None, samples: float | NDArray[np.float64], layout: ParameterLayout
) -> Tensor:
    """Returns [L + B], ``sum_k n_k ||d_k|| / sum_k n_k``, the scale of agreement; zeros without clients.

    Args:
        total: [L + B], ``sum_k n_k ||d_k||``; None: the mean has no client.
        samples: ``sum_k n_k``, a number, or [L + B] if not every client sent every block.
        layout: the model's layout.
    """
    if total is None:
        return torch.zeros(len(layout.layers) + len(layout.blocks), dtype=torch.float64)
    return torch.from_numpy(total / np.maximum(samples, 1))
