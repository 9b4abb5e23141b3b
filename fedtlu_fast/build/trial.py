"""Builds an executor and its work from settings, without a run; `fedtlu_fast.testing` tries executors so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedtlu_fast.build.executor import choose, lane_work
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.build.privacy import with_noise
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.executors.executor import ExecutorPart, LaneWork


def executor_and_work(settings: Mapping[str, Any]) -> tuple[ExecutorPart, LaneWork]:
    """Returns the executor that settings name, and what it is given when a run of them begins.

    Args:
        settings: the settings of a run, nested as in YAML, with parts by their names or as objects.

    Raises:
        InputError: Settings, data, model and executor do not fit together.
    """
    config = with_noise(parse_config(settings))
    parts = make_parts(config)
    built = parts.population, parts.trainer, parts.steps
    config, _ = choose(config, *built)
    return config.execution.executor, lane_work(config, *built)
