"""A limit on a client's share of the weights."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtlu_fast.aggregation import largest_weight


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=30), st.integers(1, 100))
def test_no_client_exceeds_the_share_and_small_ones_keep_their_weights(
    held: list[int], hundredths: int
) -> None:
    share = Fraction(hundredths, 100)
    limit = largest_weight(held, float(share))
    weights = [min(own, limit) for own in held]
    if share * len(held) > 1:
        assert max(weights) <= float(share) * sum(weights) * (1 + 1e-12)
        if max(held) > limit:
            assert max(weights) == pytest.approx(float(share) * sum(weights))
        else:
            assert weights == held
    else:
        assert weights == [min(held)] * len(held)


def test_clients_without_samples_do_not_count() -> None:
    assert largest_weight([0, 100, 10, 10], 0.5) == 20
    assert largest_weight([0, 0], 0.5) == 0
    assert largest_weight([7] * 10, 0.1) == 7
