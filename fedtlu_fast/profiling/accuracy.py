"""Measures the accuracy of a method: its numbers are compared with float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.ops.moments import Moments


@dataclass(frozen=True)
class Accuracy:
    """Holds the errors of one method on one case; None for numbers that the method does not compute.

    Attributes:
        element_error: the largest absolute error of an element.
        ratio_error: the largest absolute error of a layer's |mean|/std.
        misranked: groups of like layers whose order differs from float64's.
    """

    element_error: float | None = None
    ratio_error: float | None = None
    misranked: int | None = None


def in_parts(vector: Tensor) -> Sequence[Tensor]:
    """Splits [P] into views, small enough that the float64 copy of one stays in a cache."""
    return torch.split(vector, 1 << 20)


def element_error(result: Tensor, exact: Tensor) -> float:
    """Returns the largest distance of `result` [P] from float64 `exact` [P]; NaN if either holds NaN."""
    parts = zip(in_parts(result), in_parts(exact), strict=True)
    return float(torch.stack([(part.double() - true).abs().max() for part, true in parts]).max())


def ratio_error(excess: Tensor, oracle: Tensor) -> float:
    """Returns the largest distance of |mean|/std from the oracle's; both are given as squares (`excess`)."""
    return float((excess.cpu().clamp(min=0).sqrt() - oracle.cpu().sqrt()).abs().max())


def excess_in_float64(layer: Tensor) -> Tensor:
    """Returns the oracle's (mean/std)^2 of one layer: scalar, float64."""
    wide = layer.double()
    return (wide.mean() / wide.std(correction=0)).square()


def oracle_excess(layers: Sequence[Tensor]) -> Tensor:
    """Returns the oracle's (mean/std)^2 of every layer: [L] float64 on the CPU."""
    return torch.stack([excess_in_float64(layer) for layer in layers]).cpu()


def excess_of(moments: Moments) -> Tensor:
    """Computes (mean/std)^2 of every layer from its moments: float64 on the CPU."""
    return (moments.mean.square() * moments.count / moments.m2).cpu()


def misranked(excess: Tensor, oracle: Tensor, layout: ParameterLayout) -> int:
    """Counts groups of like layers that `excess` [L] orders unlike `oracle` [L]; `layout` is by tensors."""
    wrong = 0
    for group in layout.groups:
        layers = [layout.blocks[block].layers[0] for block in group.blocks]
        found, true = (torch.argsort(x[layers], descending=True, stable=True) for x in (excess, oracle))
        wrong += int(not torch.equal(found, true))
    return wrong
