"""Computes weighted sums of clients' changes exactly, and checks sums that are rounded once to float32."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]
Terms = Sequence[tuple[float, Tensor, Tensor | None]]


def rounded(value: Fraction) -> np.float32:
    """The float32 that is nearest to a fraction; of two, the even one."""
    near = np.float32(float(value))
    bits = near.view(np.int32)
    around = [near, *(np.int32(bits + step).view(np.float32) for step in (-1, 1))]
    return min(
        (one for one in around if np.isfinite(one)),
        key=lambda one: (abs(Fraction(float(one)) - value), int(one.view(np.int32)) & 1),
    )


def fused(a: Array, b: Array, c: Array) -> Array:
    """``a * b + c`` of float32, rounded once."""
    exact = [
        Fraction(x) * Fraction(y) + Fraction(z)
        for x, y, z in zip(*(part.tolist() for part in (a, b, c)), strict=True)
    ]
    return np.array([rounded(value) if value else np.float32(0) for value in exact], np.float32)


def assert_rounded_once(got: Tensor, terms: Terms, share: float) -> None:
    """Checks that `got` is ``sum(weight * (client - base))``, rounded once but for an error before that.

    Args:
        got: [P], float32.
        terms: weight, client and base (or None for zeros) of each product.
        share: the largest error before rounding, as a share of the sum of the products' magnitudes.
    """
    columns = []
    for weight, client, base in terms:
        change = client.double().tolist()
        origin = [0.0] * len(change) if base is None else base.double().tolist()
        columns.append((Fraction(weight), change, origin))
    for at, found in enumerate(got.tolist()):
        products = [weight * (Fraction(x[at]) - Fraction(b[at])) for weight, x, b in columns]
        exact, slack = sum(products), Fraction(share) * sum(map(abs, products))
        lowest, highest = rounded(exact - slack), rounded(exact + slack)
        assert lowest <= np.float32(found) <= highest, (at, found, float(exact), products)


def changes(vectors: Sequence[Tensor], weights: Tensor, base: Tensor | None) -> Terms:
    """The terms of an aggregation."""
    return [(weight, vector, base) for weight, vector in zip(weights.tolist(), vectors, strict=True)]


def addition(before: Tensor, client: Tensor, base: Tensor | None, weight: float) -> Terms:
    """The terms of ``before + weight * (client - base)``."""
    return [(1.0, before, None), (weight, client, base)]


def same_bits(got: Tensor, expected: Tensor) -> bool:
    return torch.equal(got.view(torch.int32), expected.view(torch.int32))
