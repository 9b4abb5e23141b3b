"""Accountants compute what the rounds of a run have cost; the computations are those of dp-accounting.

To use another accountant, subclass `Accountant` and give its dotted name as ``privacy.accountant``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cache, lru_cache
from math import inf
from typing import TYPE_CHECKING

from typing_extensions import override

from fedtlu_fast.errors import InputError
from fedtlu_fast.extras import check_extra
from fedtlu_fast.parts import part
from fedtlu_fast.privacy.release import Release

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
    from dp_accounting.rdp import RdpAccountant

FIELD = "privacy.accountant"
"""The setting that names the accountant."""
LEAST_NOISE = 0.05
"""The smallest noise multiplier that is looked for; with less noise no epsilon says anything."""
PRECISION = 1e-3
"""The share by which a noise multiplier may exceed the smallest one that keeps the budget."""


class Accountant(ABC):
    """Computes the epsilon of a number of rounds."""

    def check(self, release: Release) -> None:  # noqa: B027 (most accountants take any release)
        """Checks before the first round that the accountant can account for these releases.

        Raises:
            InputError: it cannot, or a package is missing.
        """

    @abstractmethod
    def epsilon(self, release: Release, rounds: int, delta: float) -> float:
        """Returns the epsilon after some rounds; infinite without noise.

        Args:
            release: what every round publishes.
            rounds: number of rounds; 0 costs nothing.
            delta: the probability in the definition of (epsilon, delta)-differential privacy.
        """

    def noise_multiplier(self, epsilon: float, release: Release, rounds: int, delta: float) -> float:
        """Returns the smallest noise multiplier with which the rounds cost at most epsilon, up to 0.1%.

        Args:
            epsilon: the budget.
            release: what every round publishes; its own noise multiplier does not count.
            rounds: number of rounds.
            delta: see `epsilon`.
        """

        def fits(noise: float) -> bool:
            return self.epsilon(replace(release, noise_multiplier=noise), rounds, delta) <= epsilon

        high = 1.0
        while not fits(high):
            high *= 2
        low = high / 2
        # From above, because little noise takes long to account for.
        while low > LEAST_NOISE and fits(low):
            low, high = low / 2, low
        while high - low > PRECISION * high:
            middle = (low + high) / 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high

    def rounds(self, epsilon: float, release: Release, most: int, delta: float) -> int:
        """Returns how many rounds, at most `most`, cost no more than epsilon."""
        if self.epsilon(release, most, delta) <= epsilon:
            return most
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.epsilon(release, middle, delta) <= epsilon else (low, middle)
        return low


@part
class Rdp(Accountant):
    """Rényi differential privacy (Mironov, arXiv 1702.07476), for both kinds of sampling.

    For cohorts of a fixed size the bound of Wang et al. (arXiv 1808.00087) is used. It is far looser than the
    one for Poisson sampling, and one client replaced by another counts twice the clipping norm.
    """

    @override
    def check(self, release: Release) -> None:
        _check_installed("rdp")

    @override
    def epsilon(self, release: Release, rounds: int, delta: float) -> float:
        return _epsilon("rdp", release, rounds, delta)


@part
class Pld(Accountant):
    """Privacy loss distributions (Koskela et al., arXiv 1906.03049): tighter, for Poisson sampling only."""

    @override
    def check(self, release: Release) -> None:
        _check_installed("pld")
        if not release.poisson:
            expected = "rdp with cohorts of a fixed size, for which there is no privacy loss distribution"
            raise InputError(FIELD, "pld", expected, "Or draw clients by participation.sampler=poisson.")

    @override
    def epsilon(self, release: Release, rounds: int, delta: float) -> float:
        return _epsilon("pld", release, rounds, delta)


def _check_installed(kind: str) -> None:
    check_extra("dp_accounting", FIELD, kind, "privacy")


@cache
def _epsilon(kind: str, release: Release, rounds: int, delta: float) -> float:
    """Returns the epsilon of these rounds; kept, since all arms of a comparison search for the same noise."""
    if not rounds:
        return 0.0
    if not release.noise_multiplier:
        return inf
    if kind == "pld":
        return float(_losses_of_a_round(release).self_compose(rounds).get_epsilon_for_delta(delta))
    from dp_accounting.rdp import compute_epsilon

    one = _rdp_of_a_round(release)
    return float(compute_epsilon(one.orders, rounds * one.rdp, delta)[0])


# What one round costs is kept, since every round's row asks for the sum so far.
@lru_cache(maxsize=16)
def _rdp_of_a_round(release: Release) -> RdpAccountant:
    from dp_accounting import (
        GaussianDpEvent,
        NeighboringRelation,
        PoissonSampledDpEvent,
        SampledWithoutReplacementDpEvent,
        rdp,
    )

    one = NeighboringRelation.ADD_OR_REMOVE_ONE if release.poisson else NeighboringRelation.REPLACE_ONE
    # Orders below 2 decide nothing unless epsilon is above 11, and often do not converge.
    orders = [order for order in rdp.rdp_privacy_accountant.DEFAULT_RDP_ORDERS if order >= 2]
    clients, cohort, noise = release.clients, release.cohort, release.noise_multiplier
    if release.poisson:
        event = PoissonSampledDpEvent(cohort / clients, GaussianDpEvent(noise))
    else:
        # dp-accounting divides by the largest difference of two sums, here twice the clipping norm.
        event = SampledWithoutReplacementDpEvent(clients, cohort, GaussianDpEvent(noise / 2))
    accountant = rdp.RdpAccountant(orders, one)
    accountant.compose(event)
    return accountant


@lru_cache(maxsize=2)  # one of them has millions of numbers if there is little noise
def _losses_of_a_round(release: Release) -> PrivacyLossDistribution:
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    return from_gaussian_mechanism(release.noise_multiplier, sampling_prob=release.cohort / release.clients)
