"""Changes as whole numbers: their precision, their sum, and what does not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtlu_fast import InputError
from fedtlu_fast.secure.fixed_point import FixedPoint


@settings(deadline=None)
@given(
    count=st.integers(1, 9),
    bits=st.sampled_from([32, 64]),
    most=st.floats(1e-3, 1e3),
    largest=st.integers(1, 5000),
    seed=st.integers(0, 2**20),
)
def test_the_sum_of_a_cohort_is_that_of_its_changes_up_to_half_a_step_each(count, bits, most, largest, seed):
    draws = np.random.default_rng(seed)
    form = FixedPoint(count, bits, most, largest)
    changes = draws.uniform(-most, most, (count, 20)).astype(np.float32)
    changes[0, :2] = most * np.float32(2), -most * np.float32(2)
    weights = draws.integers(1, largest, count, endpoint=True).tolist()
    total = np.zeros(21, form.dtype)
    for change, weight in zip(changes, weights, strict=True):
        total += form.encode(change, weight)
    found, weight = form.decode(total)
    assert weight == sum(weights)  # whole weights are exact
    expected = np.asarray(weights, np.float64) @ np.clip(changes.astype(np.float64), -most, most)
    allowed = sum(own * form.step(own) / 2 for own in weights) + 1e-14 * np.abs(expected).max()
    assert np.abs(found - expected).max() <= allowed * (1 + 1e-9)


@pytest.mark.parametrize("clients", [1, 2, 3, 4, 7, 8, 9, 1000])
@pytest.mark.parametrize("bits", [32, 64])
def test_the_largest_sum_does_not_wrap(clients, bits):
    form = FixedPoint(clients, bits, 0.3, 1)
    for sign in (1, -1):
        one = form.encode(np.full(3, sign * 0.3), 1)
        assert abs(int(one.view(f"<i{bits // 8}")[0])) * clients < 2 ** (bits - 1)
        total = np.zeros_like(one)
        for _ in range(clients):
            total += one
        assert form.decode(total)[0] == pytest.approx([sign * 0.3 * clients] * 3, rel=1e-6)


def test_the_scale_is_the_largest_power_of_two_that_fits():
    for clients in (1, 2, 3, 100):
        form = FixedPoint(clients)
        assert form.scale * clients < 2**63 <= form.scale * 2 * clients
        assert form.scale.bit_count() == 1


@settings(deadline=None)
@given(st.integers(1, 300), st.floats(1e-3, 10.0), st.integers(0, 2**31))
def test_rounding_toward_zero_makes_no_change_longer(count, clip, seed):
    form = FixedPoint(100, 32, 1.0, 1024, toward_zero=True)
    change = np.random.default_rng(seed).standard_normal(count)
    change *= clip / np.linalg.norm(change)
    found, _ = form.decode(form.encode(change, 1.0))
    assert np.linalg.norm(found) <= np.linalg.norm(change) * (1 + 1e-12)
    assert (np.abs(np.clip(change, -1, 1) - found) <= form.step(1.0) * (1 + 1e-9)).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"bits: got 32; expected more bits, .* a sum of 7 clients fits"):
        FixedPoint(8, 32)
    assert FixedPoint(7, 32).scale
    with pytest.raises(InputError, match=r"largest_weight: got 10; expected at least the weight 11"):
        FixedPoint(2, largest_weight=10).encode(np.zeros(2), 11)


@settings(deadline=None)
@given(st.integers(-20, 5), st.integers(2, 2000), st.integers(1, 50), st.integers(0, 2**31))
def test_whole_multiples_of_a_given_step_come_back_exactly(exponent, most, clients, seed):
    step = 2.0**exponent
    form = FixedPoint(clients, 32, most * step, 1000, given_step=step)
    assert form.step(1.0) == step
    whole = np.random.default_rng(seed).integers(-most, most, (clients, 20), endpoint=True)
    total = np.zeros(21, form.dtype)
    for own in whole:
        total += form.encode((own * step * (1 + 1e-6)).astype(np.float32), 1.0)
    found, weight = form.decode(total)
    assert weight == clients
    assert np.array_equal(found, whole.sum(0) * step)


def test_a_given_step_needs_room():
    with pytest.raises(InputError, match=r"bits: got 32; expected 64, .* than 1, .* numbers up to 0.5 fit"):
        FixedPoint(3, 32, 1.0, given_step=2.0**-30)
    with pytest.raises(InputError, match=r"bits: got 64; expected a smaller largest_change than 1, or"):
        FixedPoint(3, 64, 1.0, given_step=2.0**-90)
    assert FixedPoint(3, 64, 1.0, given_step=2.0**-30).scale == 2**30
