"""Compares results with the float64 reference on the same device."""

from __future__ import annotations

import torch
from torch import Tensor

from fedtlu_fast.ops import reference
from fedtlu_fast.ops import triton as ops
from fedtlu_fast.ops.moments import Moments
from gpu_rows import DEVICE
from gpu_rows.rivals import moments_ratio

CHECKED_LAYERS = 1000


def checked(offsets: Tensor) -> list[int]:
    """Returns the layers that are compared with the reference: all, or a few thousand if there are more."""
    layers = offsets.numel() - 1
    return list(range(0, layers, max(1, layers // CHECKED_LAYERS)))


def picked(moments: Moments | None, vector: Tensor, offsets: Tensor) -> tuple[Moments, Moments]:
    """Returns the moments of the compared layers, and the reference's moments of the same layers."""
    assert moments is not None
    chosen = checked(offsets)
    expected = reference.layer_stats_list([vector[offsets[layer] : offsets[layer + 1]] for layer in chosen])
    index = torch.tensor(chosen, device=DEVICE)
    return Moments(moments.rows[:, index]), expected


def moments_differ(found: Moments, expected: Moments) -> str | None:
    """Returns the first difference beyond the tolerance; None if there is none."""
    for column in ("count", "abs_max", "nonfinite"):
        if not torch.equal(getattr(found, column), getattr(expected, column)):
            return f"{column} differs"
    truth = moments_ratio(expected)
    if not torch.allclose(moments_ratio(found), truth, rtol=1e-13, atol=1e-8, equal_nan=True):
        return "mean/std is off by more than 1e-8"
    if not torch.allclose(found.m2, expected.m2, rtol=1e-10, atol=0):
        return "m2 differs"
    return None


def same_bits(got: Tensor, expected: Tensor) -> bool:
    return torch.equal(got.view(torch.int32), expected.view(torch.int32))


def sums_differ(got: Tensor, expected: Tensor, choice: str) -> str | None:
    """Tells how a sum that is kept so (`sums.SUMS`) differs from the reference; None if it is right.

    In pairs the last digit may differ, and more where the terms all but cancel.
    """
    if choice == "float64":
        return None if same_bits(got, expected) else "bits differ"
    right = torch.allclose(got, expected, rtol=2.0**-23, atol=2.0**-40 * float(expected.abs().max()))
    return None if right else "sums in pairs are off"


def stats_gate(delta: Tensor, offsets: Tensor) -> str | None:
    """Returns the first error of layer_stats here; None if there is none."""
    got = ops.layer_stats(delta, offsets)
    views = [delta[offsets[layer] : offsets[layer + 1]] for layer in checked(offsets)]
    some, expected = picked(got, delta, offsets)
    for name, found in (("layer_stats", some), ("layer_stats_list", ops.layer_stats_list(views))):
        wrong = moments_differ(found, expected)
        if wrong:
            return f"{name}: {wrong}"
    again = ops.layer_stats(delta, offsets)
    if not torch.equal(again.rows, got.rows):
        return "layer_stats: two runs differ"
    delta[offsets[1] - 1], saved = float("nan"), delta[offsets[1] - 1].clone()
    spoilt = ops.layer_stats(delta, offsets)
    delta[offsets[1] - 1] = saved
    if not (spoilt.nonfinite[0] == 1 and spoilt.mean[0].isnan() and spoilt.nonfinite[1:].sum() == 0):
        return "layer_stats: a NaN is not counted in its layer alone"
    return None
