"""Curves of arms over rounds, from the logs of their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.report.aggregate.client_choices import ClientChoices
from fedtlu_fast.report.arms import arm_names, is_reference
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure as Quality

Floats = NDArray[np.float64]
Choices = Mapping[str, Sequence[ClientChoices]]
"""The choices of each arm's runs (its seeds), by the name of the arm."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The numbers of one arm's R runs.

    Attributes:
        rounds: [T], the rounds with a number; empty for an arm that is drawn as a level.
        values: [R, T], NaN where a run has no number; [R, 1] for a level.
    """

    rounds: Sequence[int]
    values: Floats

    def mean(self) -> Floats:
        """Returns [T]: the mean over the runs that have a number."""
        known = ~np.isnan(self.values)
        total = np.where(known, self.values, 0).sum(axis=0)
        found: Floats = np.divide(
            total, known.sum(axis=0), out=np.full_like(total, np.nan), where=known.any(axis=0)
        )
        return found


def quality_curves(results: Sequence[ArmResult], quality: Quality) -> dict[str, Curve]:
    """Returns the tests of each arm over rounds; a level for an arm without rounds.

    Arms without a test are left out.

    Args:
        results: all arms.
        quality: the headline.
    """
    found: dict[str, Curve] = {}
    for name in arm_names(results):
        own = [result for result in results if result.selector == name]
        if all(map(is_reference, own)):
            told = [result.summary.get(quality.column) for result in own]
            if any(value is not None for value in told):
                found[name] = Curve((), quality.scale * np.array(told, np.float64)[:, None])
            continue
        tested = [{row["round"]: row[quality.column] for row in result.metrics} for result in own]
        rounds = sorted({index for run in tested for index, value in run.items() if value is not None})
        values = np.array([[run.get(index) for index in rounds] for run in tested], np.float64)
        if rounds:
            found[name] = Curve(rounds, quality.scale * values)
    return found


def agreement_curves(choices: Choices) -> dict[str, Curve]:
    """Returns the agreement of each arm over rounds; see `client_choices.agreement`."""
    found = {}
    for name, runs in choices.items():
        rounds = sorted({index for run in runs for index in run.rounds})
        told = [dict(zip(run.rounds, run.agreement.tolist(), strict=True)) for run in runs]
        values = [[run.get(index, np.nan) for index in rounds] for run in told]
        found[name] = Curve(rounds, np.array(values, np.float64))
    return found
