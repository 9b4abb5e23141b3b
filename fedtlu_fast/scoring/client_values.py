"""Reads every client's change at the same few places, by which any two changes are compared (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.randomness import generator

MOST = 2048
"""The largest number of places in one layer."""


@dataclass(frozen=True)
class ClientValues:
    """The values of the changes of K clients at S places, which are drawn anew in every round.

    A layer of n elements has m = min(n, `MOST`) places: all of them, or m different ones by chance. So the
    sum over them, times n / m, is an unbiased estimate of the sum over the layer.

    Attributes:
        values: [K, S] float32 on the CPU, layer after layer.
        starts: L + 1 columns; those of layer l are from starts[l] to starts[l + 1].
        scales: L numbers, n / m of each layer; 0 for an empty one.
    """

    values: Tensor
    starts: tuple[int, ...]
    scales: tuple[float, ...]

    @classmethod
    def of(cls, values: Tensor, layout: ParameterLayout) -> ClientValues:
        """Returns values [K, S] that were read at the places of this layout."""
        sizes = [layer.numel for layer in layout.layers]
        held = [min(size, MOST) for size in sizes]
        scales = (size / own if own else 0.0 for size, own in zip(sizes, held, strict=True))
        return cls(values, tuple(np.cumsum([0, *held]).tolist()), tuple(scales))


@lru_cache(maxsize=4)
def places_in(layout: ParameterLayout, seed: int, round_index: int) -> Tensor:
    """Draws the places of a round; the same for all its clients, wherever they are trained.

    Args:
        layout: the model's layers.
        seed: of the run.
        round_index: the round, from 1.

    Returns:
        [S] int64 on the CPU, ascending; do not change it.
    """
    draws = generator(seed, "client values", round_index)
    found = []
    for layer in layout.layers:
        if layer.numel <= MOST:
            own = np.arange(layer.numel)
        else:
            own = np.sort(draws.choice(layer.numel, MOST, replace=False, shuffle=False))
        found.append(layer.offset + own)
    return torch.from_numpy(np.concatenate(found))


def read_at(places: Tensor, vectors: Tensor, base: Tensor) -> Tensor:
    """Returns the changes of clients at these places, on the CPU.

    Args:
        places: [S], of `places_in`.
        vectors: [P] or [K, P], the clients' parameters.
        base: [P], the parameters before.

    Returns:
        [S] or [K, S] float32.
    """
    at = places.to(base.device)
    return (vectors[..., at] - base[at]).float().cpu()
