"""The settings of a comparison: what is decided when it begins, and what may change when it is resumed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fedtlu_fast.build.client_rule import make_client_rule
from fedtlu_fast.build.parts import layout_of
from fedtlu_fast.build.run import founding
from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.settings import read_config
from fedtlu_fast.errors import InputError
from fedtlu_fast.executors.parts import Auto, Serial, Vectorized
from fedtlu_fast.experiments.arms import arm_config, of_arm
from fedtlu_fast.runs.directory import COMPARISON, CONFIG
from fedtlu_fast.runs.sealed import read_sealed_yaml
from fedtlu_fast.scoring.units import scored_layout
from fedtlu_fast.selection import server_room
from fedtlu_fast.wording import RESUMED, either
from fedtlu_fast.yaml_text import dump_yaml, parse_yaml

POLICY = ("client_errors", "client_seconds", "retries")
"""Settings of `execution` that may change when a comparison is resumed."""


def settled(config: RunConfig, selectors: Sequence[str], seeds: Sequence[int], jobs: int) -> RunConfig:
    """The settings with the executor chosen, the same for all arms.

    Before anything is written or run, this finds out whether data, model, device and `keep` fit together.

    Args:
        config: the settings of all arms, apart from selector and seed.
        selectors: the names of the arms.
        seeds: the seeds.
        jobs: how many arms run at the same time.

    Raises:
        InputError: something does not fit.
    """
    by_arm = {selector: arm_config(config, selector, seeds[0]) for selector in selectors}
    settings = list(by_arm.values())
    # Any model suits the selector `full`; a selector with a budget shows whether the model fits.
    strictest = max(settings, key=lambda one: one.selection.selector.budgeted)
    choosing = [one for one in settings if one.client_selection.chooses]
    # All arms get an engine that every arm can use, so that they differ only in what was asked for.
    common: dict[str, object] = {"engine": strictest.execution.engine or "torch"} if choosing else {}
    if any(one.client_selection.keeps for one in choosing):
        common["clients_per_batch"] = 1
    execution = strictest.execution.model_copy(update=common)
    with founding(strictest.model_copy(update={"execution": execution})) as (decided, founded):
        execution, server = decided.execution, founded.server
        for name, one in by_arm.items():
            with of_arm(name):
                chosen = one.selection
                layout = layout_of(one, server.trainer.task.model)
                server_room(chosen.selector, layout, chosen.keep)
                scored_layout(layout, chosen.selector.scored_layers)
                if one.client_selection.chooses:
                    make_client_rule(one, layout, server.trainer.task, server.population)
    given = config.execution.executor
    timed = execution.client_seconds is not None
    if isinstance(given, Auto) and not timed and jobs > 1 and len(selectors) * len(seeds) > 1:
        # The arms share the cores already; who trains does not change the result.
        vectorized = execution.engine == "torch" and (execution.clients_per_batch or 1) > 1
        executor = (Vectorized if vectorized else Serial)(retries=given.retries)
        execution = execution.model_copy(update={"executor": executor})
    return config.model_copy(update={"execution": execution})


def resumed(config: RunConfig, selectors: Sequence[str], seeds: Sequence[int], out: Path) -> RunConfig:
    """The settings of a comparison that goes on: those that it began with, and what may change.

    The executor was chosen when the comparison began. What becomes of failing clients (`POLICY`), and how
    checkpoints are written, may change.

    Args:
        config: the settings that are given now.
        selectors: the selectors that are given now.
        seeds: the seeds that are given now.
        out: the comparison's directory.

    Raises:
        InputError: no comparison was begun there, or it was one of other settings, selectors or seeds.
    """
    begun, *arranged = comparison_settings(out)
    execution = begun.execution.with_policy_of(config.execution)
    begun = begun.model_copy(update={"execution": execution, "checkpoint": config.checkpoint})
    config = config.model_copy(update={"execution": execution})
    if (begun, *arranged) != (config, tuple(selectors), tuple(seeds)):
        raise InputError(RESUMED, str(out), "the settings, selectors and seeds that it began with")
    return config


def arranged_text(selectors: Sequence[str], seeds: Sequence[int]) -> str:
    """The content of comparison.yaml."""
    return dump_yaml({"selectors": list(selectors), "seeds": list(seeds)})


def comparison_settings(out: Path) -> tuple[RunConfig, tuple[str, ...], tuple[int, ...]]:
    """The settings, selectors and seeds of a comparison that was begun before.

    Raises:
        InputError: there is none, or its files are damaged.
    """
    for name in (CONFIG, COMPARISON):
        if not os.path.lexists(out / name):
            begun = os.path.lexists(out / CONFIG) or os.path.lexists(out / COMPARISON)
            expected = f"a directory with the {name} of an earlier comparison"
            anew = either("resume=False", "--out")
            fix = f"If nothing else is in it, begin anew with {anew}: nothing has been run." if begun else ""
            raise InputError(RESUMED, str(out), expected, fix)
    config = read_config(read_sealed_yaml(out / CONFIG, "the settings of this comparison"), out / CONFIG)
    arranged = parse_yaml(read_sealed_yaml(out / COMPARISON, "selectors and seeds of this comparison"))
    selectors, seeds = tuple(map(str, arranged["selectors"])), tuple(map(int, arranged["seeds"]))
    return config, selectors, seeds
