"""What all metrics share: from numbers of units (layers, and blocks as one layer) to values of blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedtlu_fast.errors import not_one_of
from fedtlu_fast.scoring.block_metrics import BlockValues, Change
from fedtlu_fast.scoring.units import root_counts, unit_norms


def moved_units(change: Change) -> Tensor:
    """Returns [L + B] bool: units of two elements or more whose change is finite and not zero."""
    return finite_units(change) & (unit_norms(change.stats, change.scored) > 0)


def finite_units(change: Change) -> Tensor:
    """Returns [L + B] bool: units of two elements or more whose change is finite."""
    # NaN or Inf in a layer makes the norms of the layer and its block NaN. A root of 1 is a count of 1.
    finite = torch.isfinite(unit_norms(change.stats, change.scored))
    return (root_counts(change.scored) > 1) & finite


def from_units(change: Change, units: Tensor, regular: Tensor) -> BlockValues:
    """Returns the values of layers and blocks, from those of units.

    Args:
        change: the change. If its ``pooling`` is ``mean``, a block's value is the mean over its layers, in
            which a bias counts as much as a matrix; if it is ``pooled``, it is the unit's own.
        units: [L + B] float64, the value of each layer, and of each block as one long layer.
        regular: [L + B] bool, the units that have a value. The others count as 0. A block is not ranked if
            none of its layers has a value (``mean``), if it has none itself (``pooled``), or if it holds NaN
            or Inf.

    Raises:
        InputError: the pooling is unknown.
    """
    layers, ranked = len(change.scored.layers), ranked_blocks(change, regular)
    values = torch.where(regular, units, 0.0)
    if change.pooling == "pooled":
        return BlockValues(values[:layers], behind(values[layers:], ranked))
    owned = [list(block.layers) for block in change.scored.blocks]
    means = torch.stack([values[own].mean() if own else values.new_zeros(()) for own in owned])
    return BlockValues(values[:layers], behind(means, ranked))


def ranked_blocks(change: Change, regular: Tensor) -> Tensor:
    """Returns [B] bool, the blocks that can be ranked; see `from_units`.

    Raises:
        InputError: the pooling is unknown.
    """
    if change.pooling not in ("mean", "pooled"):
        raise not_one_of("pooling", change.pooling, ("mean", "pooled"))
    layers = len(change.scored.layers)
    if change.pooling == "pooled":
        return regular[layers:]
    finite = torch.isfinite(change.stats.cpu().l2)
    owned = [list(block.layers) for block in change.scored.blocks]
    return torch.stack([regular[:layers][own].any() & finite[own].all() for own in owned])


def behind(values: Tensor, ranked: Tensor) -> Tensor:
    """Returns the values [B] with those of blocks that are not `ranked` behind all others.

    They become -1; if a ranked block has -1 or less, the next number below the smallest.
    """
    lowest = float(values[ranked].min()) if bool(ranked.any()) else 0.0
    return torch.where(ranked, values, -1.0 if lowest > -1 else math.nextafter(lowest, -math.inf))
