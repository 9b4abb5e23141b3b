"""How much two clients' changes have in common, for the pair in the middle of all pairs (ours)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.ops.stacks import squared_distances
from fedtlu_fast.scoring.block_metrics import BlockValues, Change, asks
from fedtlu_fast.scoring.client_values import ClientValues
from fedtlu_fast.scoring.metrics.of_clients import weights_of_units
from fedtlu_fast.scoring.metrics.units import finite_units, from_units
from fedtlu_fast.scoring.units import root_counts


@asks("client_values")
def pairs(change: Change) -> BlockValues:
    """Ranks by the median of ``<d_j, d_k> / n`` over all pairs of different clients (ours).

    `signal` is the mean of the same products: E <d_j, d_k> = ||s||^2, if ``d_k = s + e_k`` with independent
    e_k of mean zero. Whoever sends one long change decides a mean, and hardly moves a median.

    A pair weighs w_j w_k. The median is the number that half of the pairs' weight does not exceed; if exactly
    half of the weight is below, the mean of the two numbers in the middle.

    Bound. Let hostile clients be in the share p of the pairs' weight: of K clients of the same weight of
    which f are hostile, p = 1 - (K - f)(K - f - 1) / (K (K - 1)), near 1 - (1 - q)^2 for the share q = f / K.
    If p < 1/2, the value lies between two quantiles of the products of the other clients alone: those at
    (1/2 - p) / (1 - p) and (1/2) / (1 - p) of their pairs' weight, whatever the hostile clients send, and
    however long. These are the quantiles at 0.375 and 0.625 for one of ten clients, at 0.20 and 0.80 for two
    of ten, at 0.22 and 0.78 for a fifth of many, and at 0.11 and 0.89 for a quarter of many. Of many clients,
    29% (q >= 1 - 1/sqrt(2)) are no longer bounded; of few, fewer: one of four, or two of seven.

    The products are estimated from values of the changes at places that are drawn in each round (2048 in a
    layer, or all of it), the same for all clients; the bound holds for the estimates as they are. K clients
    take K^2 distances and the time to sort them for each layer and block, and memory for a few K^2 numbers.

    Layers and blocks that one client alone sent have no value, nor have those of which all values are zero:
    such a layer counts as 0, and such a block is not ranked. A block is not ranked either if its aggregated
    change holds NaN or Inf; it is if that change is zero, since hostile clients that know the others' changes
    can cancel them. Weights are as in `votes`.
    """
    if change.client_values is None:
        raise InputError("metric", "pairs", "a change with values of each client's change")
    weights = _in_range(weights_of_units(change, "pairs"))
    value = torch.zeros(weights.shape[1], dtype=torch.float64)
    moved = torch.zeros(weights.shape[1], dtype=torch.bool)
    # Clients' values are on the CPU, where Triton does not run.
    backend = "auto" if change.backend == "triton" else change.backend
    for unit, products in _products(change, change.client_values, backend):
        value[unit], told = _median(products, weights[:, unit])
        moved[unit] = told and bool((products.diagonal() > 0).any())
    value /= root_counts(change.scored).square().clamp_min(1)
    return from_units(change, value, finite_units(change) & moved & torch.isfinite(value))


def _in_range(weights: Tensor) -> Tensor:
    """Returns weights times a power of two, the largest in [1, 2), so that their products are finite."""
    _, exponent = math.frexp(float(weights.max()) if len(weights) else 0.0)
    return weights / 2.0 ** (exponent - 1)


def _products(change: Change, held: ClientValues, backend: str) -> Iterator[tuple[int, Tensor]]:
    """Yields ``<d_j, d_k>`` of every layer and block, [K, K] float64, after its place among the units."""
    layers = len(change.layout.layers)
    for index, (block, scored) in enumerate(zip(change.layout.blocks, change.scored.blocks, strict=True)):
        whole = torch.zeros(2 * (len(held.values),), dtype=torch.float64)
        for layer in block.layers:
            own = _of_layer(held, layer, backend)
            yield layer, own
            if layer in scored.layers:
                whole += own
        yield layers + index, whole


def _of_layer(held: ClientValues, layer: int, backend: str) -> Tensor:
    """Returns ``<d_j, d_k>`` of one layer, [K, K] float64."""
    values = held.values[:, held.starts[layer] : held.starts[layer + 1]]
    if not values.numel():
        return torch.zeros(2 * (len(values),), dtype=torch.float64)
    # The distances from zero are the norms. The sums have the same bits for any number of threads.
    apart = squared_distances(torch.cat([values, values.new_zeros(1, values.shape[1])]), backend)
    norms = apart[-1, :-1]
    return held.scales[layer] * (norms[:, None] + norms[None, :] - apart[:-1, :-1]) / 2


def _median(products: Tensor, weights: Tensor) -> tuple[float, bool]:
    """Returns the weighted median over pairs of different clients, and whether there is a pair."""
    first, second = torch.triu_indices(len(weights), len(weights), 1)
    own = weights[first] * weights[second]
    values, order = products[first, second][own > 0].sort()
    if not len(values):
        return 0.0, False
    below = own[own > 0][order].cumsum(0)
    half = below[-1:] / 2
    low, high = torch.searchsorted(below, half), torch.searchsorted(below, half, right=True)
    return float(values[low] + values[high]) / 2, True
