"""Shamir's secret sharing: any `threshold` shares give the secret, and fewer say nothing about it.

A secret is the value at 0 of a polynomial of degree ``threshold - 1`` over a prime field whose other
coefficients are uniform; a share is its value at another place (Shamir, Communications of the ACM 22, 1979).
For any ``threshold - 1`` shares and any secret there is exactly one such polynomial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

PRIME = 2**256 + 297
"""The smallest prime above all secrets of 32 bytes."""
SHARE_BYTES = 33
"""The length of a share in a message."""
EXTRA_BYTES = 16
"""A coefficient is drawn from so many bytes more than the field needs that its bias is below 2^-120."""

Draw = Callable[[int], bytes]
"""Returns so many random bytes."""


def split(secret: bytes, threshold: int, places: Sequence[int], draw: Draw) -> dict[int, int]:
    """Returns the shares of a secret, by place.

    Args:
        secret: 32 bytes.
        threshold: the number of shares that give the secret.
        places: different numbers from 1 to the prime.
        draw: draws the coefficients.
    """
    size = SHARE_BYTES + EXTRA_BYTES
    tail = [int.from_bytes(draw(size), "little") % PRIME for _ in range(threshold - 1)]
    coefficients = [*reversed(tail), int.from_bytes(secret, "little")]
    return {place: _value(coefficients, place) for place in places}


def join(shares: Mapping[int, int]) -> bytes:
    """Returns the secret of these shares, by place; a wrong one if there are fewer than the threshold.

    Raises:
        OverflowError: the shares are not those of a secret of 32 bytes.
    """
    return joined(weights_at_zero(list(shares)), shares)


def joined(weights: Mapping[int, int], shares: Mapping[int, int]) -> bytes:
    """Returns the secret of shares at places with known weights, of which many secrets make use."""
    found = sum(weight * shares[place] for place, weight in weights.items()) % PRIME
    return found.to_bytes(32, "little")


def weights_at_zero(places: Sequence[int]) -> dict[int, int]:
    """Returns Lagrange's weights, with which values at these places sum to the value at 0."""
    found = {}
    for own in places:
        above = below = 1
        for other in places:
            if other != own:
                above = above * other % PRIME
                below = below * (other - own) % PRIME
        found[own] = above * pow(below, -1, PRIME) % PRIME
    return found


def _value(coefficients: Sequence[int], place: int) -> int:
    """Returns the value of a polynomial at a place, by Horner's rule."""
    found = 0
    for coefficient in coefficients:
        found = (found * place + coefficient) % PRIME
    return found
