"""The callback that writes down what a run has cost of its clients' privacy."""

from __future__ import annotations

from math import isfinite

from typing_extensions import override

from fedtlu_fast.privacy.budget import Account
from fedtlu_fast.simulation.callbacks import Callback
from fedtlu_fast.simulation.run_context import RunContext


class PrivacyAccount(Callback):
    """Writes the epsilon of the rounds so far into every round's row, as ``epsilon``.

    Without noise the row has null. That all rounds are within the budget is checked when the run is built.
    """

    def __init__(self, account: Account) -> None:
        """Takes the account of the run."""
        self._account = account

    @override
    def on_round_end(self, run: RunContext) -> None:
        """Writes the row."""
        epsilon = self._account.epsilon(run.round)
        run.log(epsilon=epsilon if isfinite(epsilon) else float("nan"))
