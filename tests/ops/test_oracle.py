"""Tests the oracle itself: it agrees with exact arithmetic, and notices errors."""

import math

import pytest
from support import oracle
from support.sampling import fresh


@pytest.mark.parametrize("shift", [0.0, 1.0, -1e6])
@pytest.mark.parametrize("scale", [1.0, 1e-40, 1e140])
def test_extended_floats_and_fractions_agree(monkeypatch, shift, scale):
    layer = (fresh().normal(size=301) + shift) * scale
    found = oracle.moments(layer)
    monkeypatch.setattr(oracle, "EXTENDED", False)
    exact = oracle.moments(layer)
    assert (found[0], found[3:]) == (exact[0], exact[3:])
    assert found[1] == pytest.approx(exact[1], rel=1e-15, abs=1e-17 * exact[3])
    assert found[2] == pytest.approx(exact[2], rel=1e-14, abs=0)


@pytest.mark.parametrize(
    ("layer", "moments"),
    [
        ([], (0, 0.0, 0.0, 0.0, 0)),
        ([0.1] * 3, (3, 0.1, 0.0, 0.1, 0)),
        ([1.0, 2.0, -3.0, 4.0], (4, 1.0, 26.0, 4.0, 0)),
    ],
)
def test_small_layers_by_hand(layer, moments):
    assert oracle.moments(layer) == moments


def test_a_layer_with_a_bad_element_has_no_moments():
    count, *rest, bad = oracle.moments([1.0, math.inf, math.nan])
    assert (count, bad) == (3, 2)
    assert all(map(math.isnan, rest))


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("layer", [[1.0, 2.0, 4.0], [2.0, 2.0], [1.0, math.nan]], ids=str)
def test_a_wrong_number_is_noticed(layer, column):
    right = list(oracle.moments(layer))
    oracle.assert_moments(right, layer)
    wrong = [*right]
    wrong[column] = 7.0 if math.isnan(right[column]) else right[column] * (1 + 1e-6) + 1e-6
    with pytest.raises(AssertionError):
        oracle.assert_moments(wrong, layer)
