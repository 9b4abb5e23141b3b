"""The account of a run's privacy, which follows from the number of its rounds alone.

So a run that is killed and resumed has the account of a run that was not.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedtlu_fast.errors import InputError
from fedtlu_fast.privacy.accountants import Accountant
from fedtlu_fast.privacy.release import Release


@dataclass(frozen=True)
class Account:
    """Says what rounds cost.

    Attributes:
        accountant: computes it.
        release: what every round publishes.
        delta: the delta of (epsilon, delta)-differential privacy.
        budget: the largest epsilon; None: there is no budget.
    """

    accountant: Accountant
    release: Release
    delta: float
    budget: float | None = None

    def epsilon(self, rounds: int) -> float:
        """Returns the epsilon after this number of rounds; infinite without noise."""
        return self.accountant.epsilon(self.release, rounds, self.delta)

    def check(self, rounds: int) -> None:
        """Raises an error if so many rounds cost more than the budget.

        Raises:
            InputError: they do; the error says how many rounds the budget allows.
        """
        if self.budget is None or self.epsilon(rounds) <= self.budget:
            return
        most = self.accountant.rounds(self.budget, self.release, rounds, self.delta)
        if not most:
            expected = f"more noise: with this even one round costs more than privacy.epsilon={self.budget:g}"
            raise InputError("privacy.noise_multiplier", self.release.noise_multiplier, expected)
        noise = f"noise_multiplier {self.release.noise_multiplier:g}"
        expected = f"at most {most} with privacy.epsilon={self.budget:g} and {noise}"
        fix = "Run fewer rounds, or start a run with a larger epsilon or noise_multiplier."
        raise InputError("rounds", rounds, expected, fix)
