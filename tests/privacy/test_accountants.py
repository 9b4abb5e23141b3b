"""The cost of rounds, against published figures and closed forms, and the noise that a budget needs."""

from dataclasses import replace
from math import erfc, exp, inf, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.privacy.accountants import Pld, Rdp
from fedtlu_fast.privacy.budget import Account
from fedtlu_fast.privacy.release import Release

EVERYBODY = Release(1.0, clients=100, cohort=100, poisson=True)


def gaussian_delta(epsilon, noise):
    """The delta of the Gaussian mechanism (Balle and Wang, arXiv 1805.06530, Theorem 8)."""
    low, high = 0.5 / noise - epsilon * noise, 0.5 / noise + epsilon * noise
    return 0.5 * erfc(-low / sqrt(2)) - exp(epsilon) * 0.5 * erfc(high / sqrt(2))


@pytest.mark.parametrize(
    ("accountant", "release", "rounds", "delta", "epsilon", "within"),
    [
        # Known points of dp-accounting's own tests (0.6.0); the orders of ours are coarser than in the first.
        (Rdp(), replace(EVERYBODY, noise_multiplier=4.530877117), 1, 1e-6, 1.0, 0.01),
        (Pld(), replace(EVERYBODY, noise_multiplier=2.0), 4, 0.126936, 1.0, 1e-3),
        (Pld(), Release(0.5, clients=100, cohort=20, poisson=True), 3, 0.15594, 1.0, 1e-3),
    ],
)
def test_the_cost_is_that_of_published_points(accountant, release, rounds, delta, epsilon, within):
    found = accountant.epsilon(release, rounds, delta)
    assert found == pytest.approx(epsilon, abs=within)


@examples(10)
@given(st.floats(1.0, 20.0), st.integers(1, 50))
def test_without_sampling_the_bounds_are_above_the_exact_cost(noise, rounds):
    release, single = replace(EVERYBODY, noise_multiplier=noise), noise / sqrt(rounds)
    tight, loose = Pld().epsilon(release, rounds, 1e-5), Rdp().epsilon(release, rounds, 1e-5)
    assert gaussian_delta(tight, single) <= 1e-5 * (1 + 1e-6)
    assert gaussian_delta(0.99 * tight - 1e-3, single) > 1e-5
    assert tight <= loose + 1e-3


def test_a_cohort_of_a_fixed_size_costs_more_because_a_client_is_replaced():
    fixed = Release(2.0, clients=1000, cohort=10, poisson=False)
    everybody = Release(2.0, clients=10, cohort=10, poisson=False)
    assert Rdp().epsilon(fixed, 20, 1e-5) > Rdp().epsilon(replace(fixed, poisson=True), 20, 1e-5)
    # One client replaced moves the sum by twice the clipping norm, as half the noise would.
    halved = replace(everybody, noise_multiplier=1.0, poisson=True)
    assert Rdp().epsilon(everybody, 20, 1e-5) == pytest.approx(Rdp().epsilon(halved, 20, 1e-5), rel=1e-9)


@pytest.mark.parametrize(("accountant", "epsilon"), [(Rdp(), 0.5), (Rdp(), 8.0), (Pld(), 1.0)])
def test_the_noise_for_a_budget_is_the_smallest(accountant, epsilon):
    release = Release(0.0, clients=1000, cohort=50, poisson=True)
    noise = accountant.noise_multiplier(epsilon, release, 30, 1e-4)
    within = replace(release, noise_multiplier=noise)
    assert accountant.epsilon(within, 30, 1e-4) <= epsilon
    assert accountant.epsilon(replace(release, noise_multiplier=noise / 1.01), 30, 1e-4) > epsilon
    assert accountant.rounds(epsilon, within, 40, 1e-4) >= 30


def test_nothing_costs_nothing_and_no_noise_costs_everything():
    release = Release(1.0, clients=10, cohort=2, poisson=True)
    assert Rdp().epsilon(release, 0, 1e-5) == 0
    assert Rdp().epsilon(replace(release, noise_multiplier=0.0), 1, 1e-5) == inf
    assert Rdp().rounds(1.0, release, 100, 1e-5) == 0


def test_privacy_loss_distributions_refuse_cohorts_of_a_fixed_size():
    with pytest.raises(InputError, match=r"privacy.accountant: got 'pld'.* rdp with cohorts"):
        Pld().check(Release(1.0, clients=10, cohort=2, poisson=False))


def test_the_account_says_how_many_rounds_a_budget_allows():
    account = Account(Rdp(), Release(1.0, clients=1000, cohort=10, poisson=True), 1e-5, budget=2.0)
    most = account.accountant.rounds(2.0, account.release, 1000, 1e-5)
    account.check(most)
    with pytest.raises(InputError, match=rf"rounds: got {most + 1}; expected at most {most} with privacy"):
        account.check(most + 1)
    assert account.epsilon(most) <= 2.0 < account.epsilon(most + 1)
