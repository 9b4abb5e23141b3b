"""What runs, comparisons and experiments leave, as values that reports are made of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.models.lora import merged
from fedtlu_fast.places import portable
from fedtlu_fast.runs.as_json import dump_json
from fedtlu_fast.runs.directory import LOGS, RunDirectory
from fedtlu_fast.runs.reading import read_finished
from fedtlu_fast.wording import RESUMED

NO_BUDGET = "all"
"""What stands for a budget in the name of an arm whose clients have none: ``full@all``."""


@dataclass(frozen=True)
class BestModel:
    """The best model of a run.

    Attributes:
        round: the model is the one after this round.
        metric: the key in metrics.jsonl that it was chosen by.
        value: what it has there.
        params: [P] float32, its parameters, on the CPU.
        buffers: [Q] float32, its floating-point buffers, on the CPU.
    """

    round: int
    metric: str
    value: float
    params: torch.Tensor
    buffers: torch.Tensor


@dataclass(frozen=True, repr=False)
class RunResult:
    """What a run leaves.

    Attributes:
        summary: as in summary.json.
        metrics: as in metrics.jsonl, one row a round.
        selection: as in selection.jsonl, one row a round.
        params: [P] float32, the final global parameters.
        layout: of the model.
        out: the run's directory, if it had one.
        model: the module with the final weights and buffers, on the CPU and in evaluation mode.
        best: the best model, where one was kept (`checkpoint.best`, `SaveBest`).
    """

    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    selection: list[dict[str, Any]]
    params: torch.Tensor
    layout: ParameterLayout
    out: Path | None
    model: nn.Module
    best: BestModel | None = None

    def __repr__(self) -> str:
        name = self.summary["headline"]
        percent = bool(self.summary["figures"][name]["percent"])
        lines = [
            f"RunResult of {self.summary['rounds']} rounds, {self.layout.size:,} parameters",
            f"  test {name}: {_number(self.summary[f'test_{name}'], percent)}",
            f"  clients' own tests, {name}: {_number(self.summary[f'local_{name}'], percent)}",
            f"  directory: {self.out or 'none'}",
        ]
        if stopped := self.summary["stopped"]:
            lines.insert(1, f"  stopped early: {stopped}")
        if self.best is not None:
            lines.append(f"  best: {self.best.metric} {self.best.value:.4g}, after round {self.best.round}")
        return "\n".join(lines)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The state dict of the final model: all parameters and buffers, by name."""
        return self.model.state_dict()

    def save_pretrained(self, directory: Path | str) -> None:
        """Writes the final model as `transformers` does, so that ``from_pretrained`` reads it.

        Adapters that were added by ``model.lora`` are merged into the weights; a model of peft's own writes
        its adapters.

        Args:
            directory: made if it is not there.

        Raises:
            InputError: the model is none of Hugging Face's, and has no ``save_pretrained``.
        """
        if not hasattr(self.model, "save_pretrained"):
            raise InputError(
                "save_pretrained",
                type(self.model).__name__,
                "a model of Hugging Face's",
                "Save result.state_dict() instead, by safetensors.torch.save_file.",
            )
        saved: Any = merged(self.model)
        saved.save_pretrained(directory)


@dataclass(frozen=True)
class ArmResult:
    """What one arm left: its summary and its logs."""

    selector: str
    seed: int
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    selection: list[dict[str, Any]]
    timings: Sequence[dict[str, Any]] = ()


def _number(value: float | None, percent: bool) -> str:
    if value is None:
        return "none"
    return f"{100 * value:.4g}%" if percent else f"{value:.4g}"


def arm_name(selector: str, seed: int) -> str:
    """The name of an arm of a comparison."""
    return f"{selector}-seed{seed}"


def arm_path(out: Path, selector: str, seed: int) -> Path:
    """The directory of an arm in that of its comparison; it has the arm's name, in characters of any system.

    A directory that has the very name of the arm, as earlier versions gave it, is found too.
    """
    name = arm_name(selector, seed)
    return out / name if os.path.lexists(out / name) else out / portable(name)


def read_arm(path: Path, selector: str | None = None, field: str = RESUMED) -> ArmResult:
    """What a finished arm left in its directory.

    Args:
        path: of the directory.
        selector: the arm's selector; None: as the directory is named.
        field: what names it, for the message.

    Raises:
        InputError: it is not finished, or not as it was written.
    """
    directory, _ = RunDirectory.open(path, field)
    summary, rows = read_finished(directory, field)
    name = path.name.rpartition("-seed")[0] if selector is None else selector
    return ArmResult(name, summary["seed"], summary, *(rows[log] for log in LOGS))


def save_comparison(out: Path, rows: Sequence[dict[str, Any]], results: Sequence[ArmResult]) -> None:
    """Writes comparison.json: the table's rows and every arm's summary."""
    content = {"table": list(rows), "runs": [result.summary for result in results]}
    RunDirectory(out).write("comparison.json", dump_json(content, indent=1) + "\n")


@dataclass(frozen=True)
class ConditionResult:
    """What the arms of one condition of an experiment left: an aggregator with a threat.

    Attributes:
        aggregator: its name.
        threat: its name.
        arms: the runs of all selectors and seeds.
    """

    aggregator: str
    threat: str
    arms: list[ArmResult]

    @property
    def name(self) -> str:
        """The name of the condition, and of its directory."""
        return condition_name(self.aggregator, self.threat)


def condition_name(aggregator: str, threat: str) -> str:
    """The name of a condition, and of its directory in that of the experiment."""
    return f"{aggregator}-{threat}"
