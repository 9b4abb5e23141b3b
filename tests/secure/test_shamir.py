"""Shares of a secret: enough of them give it, and fewer are consistent with every secret."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import isprime, prevprime

from fedtlu_fast.secure.shamir import PRIME, join, split, weights_at_zero

TEXTS = st.binary(min_size=32, max_size=32)
PLACES = st.lists(st.integers(1, 10**6), min_size=2, max_size=8, unique=True)


def test_the_modulus_is_the_first_prime_above_all_secrets():
    assert isprime(PRIME)
    assert prevprime(PRIME) < 2**256 < PRIME


@given(data=st.data(), secret=TEXTS, places=PLACES)
def test_any_shares_that_are_enough_give_the_secret(data, secret, places):
    threshold = data.draw(st.integers(1, len(places)))
    shares = split(secret, threshold, places, secrets.token_bytes)
    some = data.draw(st.permutations(places))[: data.draw(st.integers(threshold, len(places)))]
    assert join({place: shares[place] for place in some}) == secret


@given(data=st.data(), secret=TEXTS, other=TEXTS, places=PLACES)
def test_fewer_shares_are_those_of_every_other_secret_too(data, secret, other, places):
    """For every secret there is a polynomial through the known shares, and exactly one."""
    threshold = len(places)
    shares = split(secret, threshold, places, secrets.token_bytes)
    known, hidden = places[1:], places[0]
    # The value at the hidden place with which the shares give the other secret.
    weights = weights_at_zero(places)
    rest = sum(weights[place] * shares[place] for place in known)
    value = (int.from_bytes(other, "little") - rest) * pow(weights[hidden], -1, PRIME) % PRIME
    assert join({**{place: shares[place] for place in known}, hidden: value}) == other
    assert (value == shares[hidden]) == (other == secret)


def test_one_share_too_few_is_uniform_whatever_the_secret():
    """A share of two is a uniform number: its top bits are as often 0 as 1, for a secret of zeros too."""
    for secret in (bytes(32), b"\xff" * 32):
        found = [split(secret, 2, [1, 2], secrets.token_bytes)[1] >> 248 for _ in range(4000)]
        assert sum(found) / 4000 == pytest.approx(127.5, abs=5 * 73.9 / 4000**0.5)
