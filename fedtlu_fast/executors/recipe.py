"""What builds the same data and model in every worker that is no fork of this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedtlu_fast.executors.lane_trainer import LaneTrainer
from fedtlu_fast.executors.patience import Watch
from fedtlu_fast.layout import ParameterLayout


@dataclass(frozen=True)
class Made:
    """What a worker's data and model are, so that all of them can be compared.

    Attributes:
        layout: of the model.
        fingerprint: of the data.
        facts: about the machine; see `environment`.
        device: on which the model is.
    """

    layout: ParameterLayout
    fingerprint: str
    facts: dict[str, str]
    device: str


Recipe = Callable[[Watch], tuple[LaneTrainer, Made]]
"""Builds, wherever it is called, what trains lanes there; it can be pickled."""
