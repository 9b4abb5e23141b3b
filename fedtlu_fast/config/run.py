"""Defines the complete settings of a run, `RunConfig`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
    model_validator,
)

from fedtlu_fast.config.client_selection import ClientSelectionConfig
from fedtlu_fast.config.clients import (
    PretrainingConfig,
    TrainingConfig,
)
from fedtlu_fast.config.data import DataConfig, PartitionConfig
from fedtlu_fast.config.execution import ExecutionConfig
from fedtlu_fast.config.model import ModelConfig
from fedtlu_fast.config.participation import ParticipationConfig
from fedtlu_fast.config.privacy import PrivacyConfig
from fedtlu_fast.config.private_fits import check_private
from fedtlu_fast.config.section import Section
from fedtlu_fast.config.selection import SelectionConfig
from fedtlu_fast.config.server import AggregationConfig, CheckpointConfig, EvaluationConfig
from fedtlu_fast.config.steps import ClientStepConfig, ThreatConfig, listed
from fedtlu_fast.errors import InputError, choice, nearest
from fedtlu_fast.ops.backends import DEVICE_PATTERN
from fedtlu_fast.registry import names
from fedtlu_fast.runs.find import LATEST
from fedtlu_fast.tasks.builder import TaskBuilder, builder_of, own_sources
from fedtlu_fast.wording import ALL_SETTINGS
from fedtlu_fast.yaml_text import dump_yaml

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
"""The names that runs may have: parts of a directory's name on any system."""
OWN = "own"
"""The name of the task and of the source of a `Federation`."""


@dataclass(frozen=True)
class Own:
    """Holds the task and the data of a `Federation`, which are objects without a name in the settings.

    Attributes:
        task: a `tasks.task.Task`.
        data: a `data.datasets.Datasets`.
    """

    task: Any
    data: Any


class RunConfig(Section):
    """Describes one run of a federation completely: the same settings give the same bits."""

    task: str = Field(
        "language_modelling",
        description="what the model learns: language_modelling | tagging | classification (of vectors) | "
        "image_classification | text_classification | package.module:Name | own (a Federation's task); "
        "pycode, digits, topics: short names of a task with its default data",
    )
    run_name: str | None = Field(
        None,
        description="name of the run, by which commands find its directory in runs/: letters, digits, dots, "
        "dashes and underscores; it changes no result",
    )
    seed: int = Field(0, ge=0, description="seed of every random draw in the run")
    rounds: int = Field(40, ge=1, description="number of rounds, warm-up included")
    warmup_rounds: int = Field(0, ge=0, description="number of first rounds in which every block is updated")
    clients: int = Field(100, ge=1, description="number of clients in the federation")
    cohort: int = Field(
        10, ge=1, description="number of clients that train in a round; participation.sampler draws them"
    )
    server_lr: float = Field(
        1.0, gt=0, description="learning rate of the server, a factor on the averaged change"
    )
    device: str = Field(
        "cpu",
        pattern=DEVICE_PATTERN,
        description="cpu | cuda | cuda:N (the device that trains and aggregates)",
    )
    threads: int | None = Field(
        1, ge=1, le=4096, description="CPU threads of PyTorch per worker; null: PyTorch's own number"
    )
    backend: Literal["auto", "reference", "native", "triton"] = Field(
        "auto",
        description="backend of the kernels: auto (the fastest that runs on the device) | reference "
        "(PyTorch, float64) | native (C++) | triton (GPU)",
    )
    data: DataConfig = DataConfig()
    partition: PartitionConfig = PartitionConfig()
    participation: ParticipationConfig = ParticipationConfig()
    model: ModelConfig = ModelConfig()
    pretraining: PretrainingConfig = PretrainingConfig()
    training: TrainingConfig = TrainingConfig()
    aggregation: AggregationConfig = AggregationConfig()
    client_selection: ClientSelectionConfig = ClientSelectionConfig()
    selection: SelectionConfig = SelectionConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    threats: Annotated[tuple[ThreatConfig, ...], BeforeValidator(listed)] = Field(
        (),
        description="list of noisy or malicious clients, as kind:share:strength; [sign_flip:0.2]: a fifth of "
        "the clients send the opposite of their change",
    )
    client_steps: Annotated[tuple[ClientStepConfig, ...], BeforeValidator(listed)] = Field(
        (),
        description="list of steps that clients take around their training: scaffold | feddyn | fednova | "
        "ditto (ditto:0.1 sets its lam) | top_k (top_k:0.01 sends 1% of the numbers) | random_k | "
        "quantise (quantise:4 sends 4 bits for each number) | sign | majority_vote | low_rank | "
        "package.module:Name",
    )
    execution: ExecutionConfig = ExecutionConfig()
    own: Own | None = Field(None, exclude=True, description="task and data of a Federation, as objects")

    @model_validator(mode="before")
    @classmethod
    def _own_source(cls, value: Any) -> Any:
        """Chooses the task's default source if none is given, and the task if its default source is given."""
        data = value.get("data", {}) if isinstance(value, Mapping) else None
        given = value.get("task") if isinstance(value, Mapping) else None
        if not isinstance(data, Mapping) or not isinstance(given, str):
            return value
        task = {source: task for task, source in own_sources().items()}.get(given, given)
        source = own_sources().get(task)
        if source is None and ":" in task:
            with suppress(InputError):  # a run that is only shown may have a task that is missing here
                source = builder_of(task).own_source or None
        if source is None:
            return value
        if given == source and str(data.get("source", source)) != source:
            raise InputError(
                "data.source",
                str(data["source"]),
                f"{source} with task={source}",
                "Leave one of the two out.",
            )
        return {**value, "task": task, "data": {"source": source, **data}}

    @field_validator("run_name")
    @classmethod
    def _name_of_a_directory(cls, value: str | None) -> str | None:
        if value is not None and (not NAME.fullmatch(value) or value == LATEST):
            expected = (
                "1 to 60 letters, digits, dots, dashes and underscores, beginning with a letter or a digit, "
                f"and not {LATEST}, which stands for the latest run"
            )
            raise InputError("run_name", value, expected)
        return value

    @field_validator("task")
    @classmethod
    def _known_task(cls, value: str) -> str:
        known = [*names("task"), *own_sources().values()]
        if value not in (*names("task"), OWN) and ":" not in value:
            expected = f"one of {choice(known, ALL_SETTINGS)}, or package.module:Name of your own"
            about = f"({cls.model_fields['task'].description})"
            raise InputError("task", value, expected, about, nearest(value, known))
        return value

    @model_validator(mode="after")
    def _cohort_fits(self) -> Self:
        if self.cohort > self.clients:
            raise InputError("cohort", self.cohort, f"at most {self.clients}, the number of clients")
        return self

    @model_validator(mode="after")
    def _draw_fits(self) -> Self:
        try:
            self.participation.value.check(self.clients, self.cohort)
        except InputError as error:
            raise error.of(f"participation.{error.field}") from None
        return self

    @model_validator(mode="after")
    def _threats_fit(self) -> Self:
        kinds = [threat.name_of("kind") for threat in self.threats]
        together = [kind for kind, own in zip(kinds, self.threats, strict=True) if own.step.needs_each]
        for kind in set(together):
            if together.count(kind) > 1:
                raise InputError("threats", f"{kind} twice", f"{kind} once, because its clients act together")
        total = sum(getattr(threat.step, "share", 0) for threat in self.threats)
        if total > 1:
            raise InputError("threats", f"shares that sum to {total:g}", "a sum of at most 1")
        noises = TaskBuilder.noises if self.task == OWN else builder_of(self.task).noises
        for kind in ("label_noise", "token_noise"):
            if kind in kinds and kind not in noises:
                expected = f"another threat with task={self.task}, whose data this one cannot change"
                raise InputError("threats", kind, expected)
        return self

    @model_validator(mode="after")
    def _client_selection_fits(self) -> Self:
        chosen = f"with client_selection.selector={self.client_selection.name_of('selector')}"
        if not self.client_selection.chooses:
            return self
        if not self.aggregation.rule.averages:
            expected = (
                f"mean or norm_clip {chosen}: a block that a client does not send is not a change of zero"
            )
            raise InputError("aggregation.rule", self.rule_name, expected)
        if self.colluding:
            expected = f"another threat {chosen}: this one needs all blocks of every client"
            raise InputError("threats", "a_little_is_enough", expected)
        return self

    @property
    def rule_name(self) -> str:
        """Returns the name of the aggregation rule in the settings."""
        return self.aggregation.name_of("rule")

    @property
    def colluding(self) -> bool:
        """Tells whether some malicious clients decide together what they send."""
        return any(threat.step.needs_each for threat in self.threats)

    @model_validator(mode="after")
    def _rule_fits_cohort(self) -> Self:
        try:
            self.aggregation.rule.check(self.cohort)
        except InputError as error:
            raise error.of(f"aggregation.{error.field}") from None
        return self

    @model_validator(mode="after")
    def _some_round_chooses(self) -> Self:
        chooses = self.selection.selector.budgeted or self.client_selection.chooses
        if chooses and self.warmup_rounds >= self.rounds:
            raise InputError(
                "warmup_rounds",
                self.warmup_rounds,
                f"fewer than rounds, {self.rounds}: otherwise every round is warm-up and no block is ever "
                "chosen",
                "Set both, or selection.selector=full, which updates every block in every round.",
            )
        return self

    @model_validator(mode="after")
    def _has_a_sample(self) -> Self:
        if self.evaluation.held_out:
            return self
        fix = "Set evaluation.held_out=256: samples of the global test, which then does not count them."
        if self.evaluation.benefit:
            expected = "evaluation.held_out with samples on which to measure it"
            raise InputError("evaluation.benefit", True, expected, fix)
        if "held_out" in self.selection.selector.asked():
            expected = "evaluation.held_out with samples that the server may look at"
            raise InputError(*self.ranked_by, expected, fix)
        return self

    @model_validator(mode="after")
    def _clients_have_samples(self) -> Self:
        if not self.client_selection.selector.needs_samples:
            return self
        field, name = "client_selection.selector", self.client_selection.name_of("selector")
        if not self.evaluation.local_held_out:
            expected = "evaluation.local_held_out with samples that clients may look at"
            fix = "Set evaluation.local_held_out=0.5: the local tests then do not count these samples."
            raise InputError(field, name, expected, fix)
        if self.own is not None and self.own.data.held_out is None:
            expected = "clients with tests of their own, by which they choose"
            raise InputError(field, name, expected, "Give them to the data as held_out.")
        return self

    @property
    def ranked_by(self) -> tuple[str, str]:
        """Returns the setting that decides what the selector needs, and its value."""
        selector = self.selection.selector
        if hasattr(selector, "metric"):
            return "selection.metric", selector.ranks_by
        return "selection.selector", self.selection.name_of("selector")

    @model_validator(mode="after")
    def _norms_with_the_mean(self) -> Self:
        asked = self.selection.selector.asked()
        if "client_norms" in asked and not self.aggregation.rule.takes_sums:
            raise InputError(
                *self.ranked_by,
                f"another with aggregation.rule={self.rule_name}: agreement compares the norm of the "
                f"clients' mean with the norms of their changes",
                "Use aggregation.rule=mean.",
            )
        return self

    @model_validator(mode="after")
    def _private(self) -> Self:
        check_private(self)
        return self

    def parts(self) -> Iterator[Any]:
        """Yields all parts, and the task and the data functions of a Federation."""
        yield from super().parts()
        if self.own is not None:
            data = self.own.data
            functions = (held for held in (data.train, data.held_out, data.collate_fn) if callable(held))
            yield from (self.own.task, *functions)

    @property
    def measures_costs(self) -> bool:
        """Whether the run measures its FLOPs, for its costs.json."""
        given = self.evaluation.flops
        return self.client_selection.chooses if given == "auto" else given == "always"

    def written(self) -> dict[str, Any]:
        """Returns the complete settings as config.yaml has them."""
        # These settings mean nothing for a Federation, whose task and data are objects.
        data = set(DataConfig.model_fields) - {"source"}
        unused: dict[str, Any] = {"partition": True, "model": True, "pretraining": True, "data": data}
        return self.model_dump(mode="json", exclude=unused if self.task == OWN else None)

    def deciding(self) -> dict[str, Any]:
        """Returns the settings that decide the result.

        The run's name, who trains, how often the run is saved, and how many rounds it has may change.
        """
        settled = self.model_dump(mode="json", exclude={"run_name", "checkpoint", "rounds"})
        settled["execution"] = {
            name: settled["execution"][name]
            for name in ("clients_per_batch", "engine", "compile", "precision", "lanes")
        }
        return settled

    def to_yaml(self) -> str:
        """Returns the complete settings as YAML."""
        return dump_yaml(self.written())
