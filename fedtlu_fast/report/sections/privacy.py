"""What a page says of runs with differential privacy: its figures are not all fit to be published."""

from __future__ import annotations

from collections.abc import Sequence

from fedtlu_fast.report.pages.content import Notes, Part
from fedtlu_fast.runs.results import ArmResult

SIMULATION = (
    "Differential privacy of clients is simulated here, and this page is not for publication: losses and "
    "tests of clients, who took part, what clients sent, seconds and digests of data have no noise. "
    "simulation_only in summary.json names them all."
)
ADDS_UP = "An epsilon is that of one run: arms and seeds on the same clients add up to more."


def privacy_notes(results: Sequence[ArmResult]) -> list[Part]:
    """Returns a warning if a run has differential privacy; nothing otherwise."""
    if not any("simulation_only" in result.summary for result in results):
        return []
    return [Notes([SIMULATION, *([ADDS_UP] if len(results) > 1 else [])], warning=True)]
