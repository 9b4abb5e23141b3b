"""What a directory holds, at a glance: which run, how far it came, and whether it goes on.

Nothing is checked against digests here; `reading` does that for results. Nothing here loads PyTorch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from fedtlu_fast.runs.arm_paths import arm_name, arm_path
from fedtlu_fast.runs.directory import COMPARISON, CONFIG, METRICS, PLAN, SUMMARY
from fedtlu_fast.runs.files import read_file
from fedtlu_fast.runs.find import Kind, began_at, kind_of, name_of
from fedtlu_fast.runs.follow import last_rows
from fedtlu_fast.runs.standing import State, state_of, state_of_arms
from fedtlu_fast.yaml_text import YamlTextError, parse_yaml

DAMAGE = (
    OSError,
    YamlTextError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What reading files raises that are not what a run has written; a stranger's directory may hold anything."""


@dataclass(frozen=True)
class Figure:
    """One number of a test, as summaries describe it.

    Attributes:
        name: such as ``perplexity``.
        value: what was measured last; None if nothing was, or if it is no number.
        percent: whether it is a share.
        lower: whether lower numbers are better.
    """

    name: str
    value: float | None
    percent: bool = False
    lower: bool = True

    def __str__(self) -> str:
        if self.value is None:
            return ""
        return f"{self.name} {100 * self.value:.1f}%" if self.percent else f"{self.name} {self.value:.4g}"


NO_FIGURE = Figure("", None)


@dataclass(frozen=True)
class Glance:
    """A run, a comparison or an experiment at a glance.

    Attributes:
        path: the directory.
        began: when it was begun, in seconds since 1970.
        kind: what the directory holds; None if nothing was written yet.
        name: its name: of ``--name``, or else of its directory.
        task: the task; empty if it is not known.
        selector: the selector, or those of a comparison, separated by commas; ``server / clients`` if clients
            choose blocks too.
        seeds: the seeds.
        done: finished rounds; of a comparison or experiment, finished runs.
        asked: all rounds or runs; 0 if it is not known.
        state: how it stands.
        figure: the last global test; of a comparison, the best selector's mean.
        best: the selector that `figure` belongs to; empty for a single run.
        problem: why the directory cannot be read; empty if it can.
    """

    path: Path
    began: float
    kind: Kind | None
    name: str
    task: str = ""
    selector: str = ""
    seeds: tuple[int, ...] = ()
    done: int = 0
    asked: int = 0
    state: State = "not begun"
    figure: Figure = NO_FIGURE
    best: str = ""
    problem: str = ""


@dataclass(frozen=True)
class ArmPlace:
    """One run of a comparison.

    Attributes:
        name: its name; in an experiment, with the condition in front.
        selector: its selector, as the comparison calls it.
        path: its directory, which may not exist yet.
        until: the round at which it ends if it ends without a summary (a shared warm-up); None for others.
    """

    name: str
    selector: str
    path: Path
    until: int | None = None


def glance(path: Path) -> Glance:
    """Reads what there is to know of a run, comparison or experiment, whatever state it is in.

    Args:
        path: the directory.
    """
    kind, began = kind_of(path), began_at(path)
    try:
        if kind == "run":
            return _run(path, began)
        if kind is not None:
            return _arms(path, began, kind)
    except DAMAGE as error:
        return Glance(path, began, kind, name_of(path), state="unreadable", problem=what_is_wrong(error))
    return Glance(path, began, None, name_of(path))


def what_is_wrong(error: BaseException) -> str:
    """Returns one of `DAMAGE` in words."""
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"


def settings_in(path: Path) -> Mapping[str, Any]:
    """Returns the settings in a directory as a nested mapping, as they are written there.

    Raises:
        OSError: There is no config.yaml, or it cannot be read.
        ValueError: It is not YAML, or not a mapping.
    """
    tree = parse_yaml(read_file(path / CONFIG).decode())
    if not isinstance(tree, dict):
        raise ValueError(f"{CONFIG} holds no settings")
    return tree


def summary_in(path: Path) -> dict[str, Any] | None:
    """Returns the content of a run's summary.json; None if the run is not finished, or if it is damaged."""
    try:
        found = json.loads(read_file(path / SUMMARY))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def arms_in(path: Path) -> list[ArmPlace]:
    """Returns the runs of a comparison, or of all comparisons of an experiment, shared warm-ups included.

    Args:
        path: the directory of the comparison or experiment.

    Raises:
        OSError: Its files cannot be read.
        ValueError: They are damaged, or name no runs; other errors of `DAMAGE` are possible too.
    """
    arms = _arms_named_in(path)
    if not arms:
        raise ValueError("it names no runs")
    return arms


def _arms_named_in(path: Path) -> list[ArmPlace]:
    if not os.path.lexists(path / PLAN):
        arranged = _yaml(path / COMPARISON)
        return _arms_of(path, settings_in(path), arranged["selectors"], arranged["seeds"], "")
    plan = _yaml(path / PLAN)
    return [
        arm
        for name, settings in plan["conditions"].items()
        for arm in _arms_of(path / name, settings, plan["selectors"], plan["seeds"], f"{name}/")
    ]


def figure_of(row: Mapping[str, Any], summary: Mapping[str, Any] | None = None) -> Figure:
    """Returns the figure that runs are compared by, from a row of metrics.jsonl or from a summary.

    Args:
        row: the row or the summary, with ``test_`` in front of the names of figures.
        summary: a summary of such a run, which says what the figure is called; None if there is none yet.
    """
    if summary is not None and summary.get("headline") in summary.get("figures", {}):
        name = str(summary["headline"])
        facts = summary["figures"][name]
        return Figure(name, _number(row.get(f"test_{name}")), facts["percent"], facts["better"] == "lower")
    if _number(row.get("test_accuracy")) is not None:
        return Figure("accuracy", _number(row["test_accuracy"]), percent=True, lower=False)
    for name in ("perplexity", "loss"):
        if _number(row.get(f"test_{name}")) is not None:
            return Figure(name, _number(row[f"test_{name}"]))
    return NO_FIGURE


def shown_selector(tree: Mapping[str, Any]) -> str:
    """Returns the selector in settings, and the clients' selector if clients choose blocks too."""
    server = str(tree["selection"]["selector"]).removeprefix("__main__:")
    clients = str(tree.get("client_selection", {}).get("selector", "none")).removeprefix("__main__:")
    return server if clients == "none" else f"{server} / {clients}"


def _run(path: Path, began: float) -> Glance:
    state, tree, summary = state_of(path), settings_in(path), summary_in(path)
    done, rows = last_rows(path / METRICS)
    if summary is not None:
        figure, done = figure_of(summary, summary), int(summary["rounds"])
    else:
        found = (figure_of(row) for row in reversed(rows))
        figure = next((one for one in found if one.value is not None), NO_FIGURE)
    return Glance(
        path,
        began,
        "run",
        str(tree.get("run_name") or name_of(path)),
        task=str(tree["task"]),
        selector=shown_selector(tree),
        seeds=(int(tree["seed"]),),
        done=done,
        asked=int(tree["rounds"]),
        state=state,
        figure=figure,
    )


def _arms(path: Path, began: float, kind: Kind) -> Glance:
    plan = _yaml(path / (PLAN if kind == "experiment" else COMPARISON))
    settings = [settings_in(path)] if kind == "comparison" else list(plan["conditions"].values())
    arms = [arm for arm in arms_in(path) if arm.until is None]
    states = [state_of(arm.path) for arm in arms]
    figure, best = _best(arms) if kind == "comparison" else (NO_FIGURE, "")
    return Glance(
        path,
        began,
        kind,
        str(settings[0].get("run_name") or name_of(path)),
        task=str(settings[0]["task"]),
        selector=",".join(map(str, plan["selectors"])),
        seeds=tuple(map(int, plan["seeds"])),
        done=states.count("finished"),
        asked=len(arms),
        state=state_of_arms(path, [arm.path for arm in arms], states),
        figure=figure,
        best=best,
    )


def _best(arms: Sequence[ArmPlace]) -> tuple[Figure, str]:
    """Returns the mean of the best selector over its finished runs, and its name."""
    found: dict[str, list[Figure]] = {}
    for arm in arms:
        summary = summary_in(arm.path)
        figure = NO_FIGURE if summary is None else figure_of(summary, summary)
        if figure.value is not None:
            found.setdefault(arm.selector, []).append(figure)
    if not found:
        return NO_FIGURE, ""
    means = {name: mean(one.value for one in own if one.value is not None) for name, own in found.items()}
    one = next(iter(found.values()))[0]
    name = (min if one.lower else max)(means, key=means.__getitem__)
    return Figure(one.name, means[name], one.percent, one.lower), name


def _arms_of(
    path: Path, settings: Mapping[str, Any], selectors: Sequence[str], seeds: Sequence[int], prefix: str
) -> list[ArmPlace]:
    shared = min(int(settings["warmup_rounds"]), int(settings["rounds"])) if len(selectors) > 1 else 0
    found = []
    for seed in seeds:
        if shared:
            name = f"warmup-seed{seed}"
            found.append(ArmPlace(prefix + name, "", path / name, shared))
        for selector in map(str, selectors):
            place = arm_path(path, selector, seed)
            found.append(ArmPlace(prefix + arm_name(selector, seed), selector, place))
    return found


def _yaml(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = parse_yaml(read_file(path).decode())
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
