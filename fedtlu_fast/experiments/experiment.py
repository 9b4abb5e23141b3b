"""The FedTLU paper's experiments: a grid of aggregators, threats, selectors and seeds on one task and model.

Each aggregator with each threat is a comparison (`compare`) in a directory of its own. The aggregators and
selectors are the paper's. It defines neither its noisy nor its malicious clients, nor mu: these are ours.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.settings import load_config, parse_config
from fedtlu_fast.errors import InputError, choice, nearest, not_one_of
from fedtlu_fast.experiments.arm_runs import Progress
from fedtlu_fast.experiments.arms import read_arms
from fedtlu_fast.experiments.compare import compare, is_complete
from fedtlu_fast.experiments.comparison_settings import POLICY
from fedtlu_fast.runs.directory import CONFIG, PLAN, RunDirectory
from fedtlu_fast.runs.results import ConditionResult, condition_name
from fedtlu_fast.runs.sealed import read_sealed_yaml, seal_yaml
from fedtlu_fast.wording import OUT, either
from fedtlu_fast.yaml_text import dump_yaml, parse_yaml

EXPERIMENTS = ("udpos-transformer", "udpos-gpt2", "ptb-transformer", "ptb-gpt2")
SELECTORS = ("fedtlu", "random", "last", "full")
Scale = Literal["small", "paper"]
AGGREGATORS: Mapping[str, Mapping[str, Any]] = {
    "fedavg": {},
    "fedprox": {"training": {"proximal_mu": 0.1}},
}
THREATS: Mapping[str, tuple[str, ...]] = {
    "clean": (),
    # Gaussian noise three times as large as the layer's own change.
    "noisy": ("noise:0.2:3",),
    # The honest change turned round and doubled.
    "malicious": ("sign_flip:0.2:2",),
}


@dataclass(frozen=True)
class Condition:
    """One cell of the grid: what all arms of a comparison share.

    Attributes:
        aggregator: one of `AGGREGATORS`.
        threat: one of `THREATS`.
        config: settings of its arms, all but selector and seed.
    """

    aggregator: str
    threat: str
    config: RunConfig

    @property
    def name(self) -> str:
        """The name of its directory too."""
        return condition_name(self.aggregator, self.threat)


def experiment_settings(name: str, scale: Scale, overrides: Sequence[str] = ()) -> RunConfig:
    """Returns the settings that all conditions of an experiment share.

    Args:
        name: one of `EXPERIMENTS`.
        scale: ``small`` (minutes on two cores) or ``paper`` (needs a GPU).
        overrides: settings to change, such as ``rounds=20``.

    Raises:
        InputError: there is no such experiment, or the overrides do not fit.
    """
    if name not in EXPERIMENTS:
        raise not_one_of(either("name", "NAME"), name, EXPERIMENTS)
    return load_config(f"{name}-{scale}", overrides=overrides)


def conditions(
    config: RunConfig,
    aggregators: Sequence[str] = tuple(AGGREGATORS),
    threats: Sequence[str] = tuple(THREATS),
) -> list[Condition]:
    """Returns the grid: every aggregator with every threat.

    Args:
        config: the settings that all conditions share; see `experiment_settings`.
        aggregators: some of `AGGREGATORS`, each once.
        threats: some of `THREATS`, each once.

    Raises:
        InputError: there is no such aggregator or threat, or one is given twice.
    """
    for field, given, known in (
        (either("aggregators", "--aggregators"), aggregators, AGGREGATORS),
        (either("threats", "--threats"), threats, THREATS),
    ):
        unknown = [one for one in given if one not in known]
        if unknown or not given or len(set(given)) < len(given):
            near = nearest(unknown[0], known) if unknown else ""
            raise InputError(field, ",".join(given), f"some of {choice(known)}, each once", near=near)
    found = []
    for aggregator in aggregators:
        for threat in threats:
            tree = config.model_dump(mode="json", exclude_none=False)
            for section, values in AGGREGATORS[aggregator].items():
                tree[section] |= values
            tree["threats"] = list(THREATS[threat])
            found.append(Condition(aggregator, threat, parse_config(tree)))
    return found


def run_experiment(
    grid: Sequence[Condition],
    selectors: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
    resume: bool = False,
) -> list[ConditionResult]:
    """Runs the comparison of every condition; finished arms are not run again.

    Args:
        grid: the conditions; see `conditions`.
        selectors: the selectors of each comparison.
        seeds: the seeds of each comparison.
        out: a new or empty directory; with `resume`, the directory of the experiment.
        jobs: the number of arms that run at the same time; None: one for each core.
        progress: see `Progress`.
        resume: go on with the experiment that `out` holds.

    Raises:
        InputError: settings, data or directory do not fit.
        InterruptedRunError: Ctrl-C was pressed; the same call with `resume` goes on.
        FedtluError: an arm failed.
    """
    plan = dump_yaml(
        {
            "selectors": list(selectors),
            "seeds": list(seeds),
            "conditions": {one.name: one.config.model_dump(mode="json") for one in grid},
        }
    )
    if resume:
        _check_plan(out, plan)
    else:
        RunDirectory.check_free(out)
        RunDirectory(out).write(PLAN, seal_yaml(plan))
    found, said = [], set[Hashable]()
    for one in grid:
        folder = out / one.name
        if is_complete(one.config.warmup_rounds, selectors, seeds, folder):
            arms = read_arms(one.config.warmup_rounds, selectors, seeds, folder)
        else:
            begun = os.path.lexists(folder / CONFIG)
            arms = compare(
                one.config,
                selectors,
                seeds,
                folder,
                jobs=jobs,
                resume=begun,
                progress=progress,
                said=said,
            )
        found.append(ConditionResult(one.aggregator, one.threat, arms))
    return found


def _check_plan(out: Path, plan: str) -> None:
    if not os.path.lexists(out / PLAN):
        expected = f"a new directory, or one with the {PLAN} of an experiment"
        raise InputError(OUT, str(out), expected)
    begun = read_sealed_yaml(out / PLAN, "the plan of this experiment")
    if _settled(begun) != _settled(plan):
        expected = "the settings, selectors, seeds and conditions that it began with"
        raise InputError(OUT, str(out), expected, "Give them again, or another directory.")


def _settled(plan: str) -> dict[str, Any]:
    """Returns a plan without the settings that may change when its comparisons are resumed."""
    content: dict[str, Any] = parse_yaml(plan)
    for settings in content["conditions"].values():
        del settings["checkpoint"]
        settings.pop("run_name", None)  # a name changes no result, and plans of earlier versions have none
        for name in POLICY:
            settings["execution"].pop(name, None)  # not every executor has all of them
    return content
