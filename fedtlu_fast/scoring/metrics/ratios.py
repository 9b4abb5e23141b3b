"""Metrics that are the norm of the change relative to a scale (ours).

    l2_per_parameter   ||dW|| / sqrt(n)                             Eq. 1 without its std
    relative_change    ||dW|| / ||W||                               W: the global parameters before the round
    agreement          ||sum_k n_k d_k|| / sum_k n_k ||d_k||        d_k: client k's change; dW their mean

relative_change is the counterpart, for changes, of the relative gradient norm in the paper on clients'
selection (arXiv 2408.15600). Up to rounding, agreement is at most 1: it is 1 if the changes of all clients
have the same direction, and about 1/sqrt(K) if the changes of K clients have random directions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.scoring.block_metrics import BlockValues, Change, asks
from fedtlu_fast.scoring.metrics.units import from_units, moved_units
from fedtlu_fast.scoring.statistics import layer_stats
from fedtlu_fast.scoring.units import root_counts, unit_norms


def l2_per_parameter(change: Change) -> BlockValues:
    """Ranks by ``||dW|| / sqrt(n)``, Eq. 1 without its std; pooled, in the order of the plain L2 norms."""
    return ratios(change, root_counts(change.scored))


def relative_change(change: Change) -> BlockValues:
    """Ranks by ``||dW|| / ||W||``, where W are the global parameters before the change."""
    weights = change.weights
    if weights is None:
        if change.parameters is None:
            raise InputError("metric", "relative_change", "a change whose parameters before it are known")
        weights = layer_stats(change.parameters, change.scored, backend=change.backend)
    return ratios(change, unit_norms(weights, change.scored))


@asks("client_norms")
def agreement(change: Change) -> BlockValues:
    """Ranks by ``||sum_k n_k d_k|| / sum_k n_k ||d_k||``, where d_k is the change of client k."""
    return ratios(change, change.client_norms)


def ratios(change: Change, scale: Tensor | None) -> BlockValues:
    """Divides the norm of every layer and block by a scale.

    A degenerate layer has the value 0, so that it is never chosen for being degenerate: a layer with fewer
    than two elements, with NaN or Inf, without change, or with a scale of zero (a layer that is all zeros has
    no relative change). A block whose layers are all degenerate, or that holds NaN or Inf, gets -1, as in
    `score_blocks`.

    Args:
        change: the change. If its ``pooling`` is ``mean``, a block's value is the mean over its layers, in
            which a bias counts as much as a matrix; if it is ``pooled``, the block is treated as one long
            layer.
        scale: [L + B], the divisor of each unit's norm: `root_counts`, `unit_norms` of the parameters, or
            `mean_client_norms`.

    Raises:
        InputError: the pooling is unknown, or the scale is missing or has another length.
    """
    units = len(change.scored.layers) + len(change.scored.blocks)
    if scale is None or scale.shape != (units,):
        given = None if scale is None else tuple(scale.shape)
        raise InputError("scale", given, f"[{units}], a number for each layer and block")
    ratio = unit_norms(change.stats, change.scored) / scale
    regular = moved_units(change) & (scale > 0) & (ratio > 0) & torch.isfinite(ratio)
    return from_units(change, ratio, regular)
