"""What runs, comparisons and experiments leave, as values that reports are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from fedtlu_fast.errors import InputError, cause, resumes_nothing
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.models.saving import Origin, class_name, save
from fedtlu_fast.models.trained_model import trained_model
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.as_json import dump_json
from fedtlu_fast.runs.directory import LOGS, RunDirectory
from fedtlu_fast.runs.files import make_root, storage_error
from fedtlu_fast.runs.model_card import FILE as CARD
from fedtlu_fast.runs.model_card import model_card
from fedtlu_fast.runs.reading import read_finished
from fedtlu_fast.wording import RESUMED, either

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
        settings: all settings of the run, nested as in config.yaml.
        best: the best model, where one was kept (`checkpoint.best`, `SaveBest`).
    """

    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    selection: list[dict[str, Any]]
    params: torch.Tensor
    layout: ParameterLayout
    out: Path | None
    model: nn.Module
    settings: Mapping[str, Any]
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

    def save_pretrained(
        self,
        directory: Path | str,
        *,
        best: bool = False,
        merge: bool = False,
        push_to_hub: str | None = None,
    ) -> None:
        """Writes the model with a card (README.md), so that ``from_pretrained`` of `transformers` reads it.

        The tokenizer or image processor of a pre-trained base goes with it. Of a run with ``model.lora``, the
        adapters and the trained head are written, so that ``PeftModel.from_pretrained(base, directory)`` of
        peft reads them. A model that is no class of `transformers` is written as its state dict
        (model.safetensors), which ``safetensors.torch.load_model`` reads.

        Args:
            directory: made if it is not there; files in it are replaced.
            best: write the best model of the run instead of the final one.
            merge: add LoRA adapters to the weights, and write a whole model.
            push_to_hub: name of a repository on the Hugging Face Hub (``user/name``), to which the directory
                is also sent by huggingface_hub, with the login that it finds; it is made if it is not there.
                The card names data and base model as the settings do, local paths included.

        Raises:
            InputError: The run kept no best model; the directory holds a model of another kind; the adapters
                alone would not give this model (their base has changed, or there is none); or the hub refuses
                the repository, whose files then lie in the directory.
            StorageError: The directory cannot be written.
        """
        model, why = self.model, None
        if best:
            if self.best is None:
                expected = "a run that kept its best model"
                fix = "Run with checkpoint.best=true, or the callback SaveBest."
                raise InputError(either("best", "--best"), best, expected, fix)
            model = trained_model(model, self.layout, self.best.params, self.best.buffers)
            why = f"the best by {self.best.metric} ({self.best.value:.6g}), after round {self.best.round}"
        place = at_home(directory)
        new = not place.exists()
        origin = Origin(str(self.settings["task"]), self.settings.get("model", {}).get("pretrained"))
        try:
            make_root(place)
            kind = save(model, origin, place, merge=merge)
            card = model_card(self.settings, self.summary, kind, class_name(model), why)
            (place / CARD).write_text(card, encoding="utf-8")
        except InputError:
            if new:
                with suppress(OSError):
                    place.rmdir()  # nothing was written into it
            raise
        except (OSError, SafetensorError) as error:
            with resumes_nothing():
                raise storage_error(place, error) from error
        if push_to_hub is not None:
            # Imported here because it takes a while, and few need it.
            from huggingface_hub import HfApi

            try:
                api = HfApi()
                repository = api.create_repo(push_to_hub, exist_ok=True)
                api.upload_folder(repo_id=repository.repo_id, folder_path=place)
            except Exception as error:  # its own errors and those of the network are of many kinds
                expected = f"a repository USER/NAME that your login on the hub may write; {cause(error)}"
                fix = f"The files are in {place}: `hf auth login`, then `hf upload USER/NAME {place}`."
                raise InputError(
                    either("push_to_hub", "--push-to-hub"), push_to_hub, expected, fix
                ) from error


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


def save_comparison(
    out: Path, rows: Sequence[dict[str, Any]], results: Sequence[ArmResult], said: str
) -> None:
    """Writes comparison.json: the table's rows, the sentence below it, and every arm's summary."""
    content = {"table": list(rows), "conclusion": said, "runs": [result.summary for result in results]}
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
