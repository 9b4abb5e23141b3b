"""The settings of a run, complete."""

from __future__ import annotations

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
from fedtlu_fast.config.section import Section
from fedtlu_fast.config.selection import SelectionConfig
from fedtlu_fast.config.server import AggregationConfig, CheckpointConfig, EvaluationConfig
from fedtlu_fast.config.steps import ClientStepConfig, ThreatConfig, listed
from fedtlu_fast.errors import InputError, choice, nearest
from fedtlu_fast.ops.dispatch import DEVICE_PATTERN
from fedtlu_fast.registry import names
from fedtlu_fast.tasks.builder import TaskBuilder, builder_of, own_sources
from fedtlu_fast.wording import ALL_SETTINGS
from fedtlu_fast.yaml_text import dump_yaml

OWN = "own"
"""The task, and the source, of a `Federation`."""


@dataclass(frozen=True)
class Own:
    """What a `Federation` brings as objects: it has no names in settings.

    Attributes:
        task: a `tasks.task.Task`.
        data: a `data.datasets.Datasets`.
    """

    task: Any
    data: Any


class RunConfig(Section):
    """One federation, complete: with the same RunConfig a run gives the same bits."""

    task: str = Field(
        "language_modelling",
        description="what the model learns: language_modelling | tagging | classification (of vectors) | "
        "image_classification | text_classification | package.module:Name | own (of a Federation); pycode, "
        "digits, topics: a task with its default data",
    )
    seed: int = Field(0, ge=0, description="of every draw in the run")
    rounds: int = Field(40, ge=1, description="rounds in all, warm-up included")
    warmup_rounds: int = Field(0, ge=0, description="first rounds that update every block")
    clients: int = Field(100, ge=1, description="clients in the federation")
    cohort: int = Field(10, ge=1, description="clients that train in a round; who: see participation")
    server_lr: float = Field(1.0, gt=0, description="factor on the averaged change")
    device: str = Field("cpu", pattern=DEVICE_PATTERN, description="cpu | cuda | cuda:N")
    threads: int | None = Field(1, ge=1, le=4096, description="CPU threads of one run; null: torch decides")
    backend: Literal["auto", "reference", "native", "triton"] = Field(
        "auto", description="who runs the kernels"
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
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    threats: Annotated[tuple[ThreatConfig, ...], BeforeValidator(listed)] = Field(
        (), description="noisy and malicious clients, such as sign_flip:0.2 (kind:share:strength); a list"
    )
    client_steps: Annotated[tuple[ClientStepConfig, ...], BeforeValidator(listed)] = Field(
        (),
        description="what clients do around training, a list: scaffold | feddyn | fednova | ditto (ditto:0.1 "
        "sets its lam) | package.module:Name",
    )
    execution: ExecutionConfig = ExecutionConfig()
    own: Own | None = Field(None, exclude=True, description="task and data of a Federation, as objects")

    @model_validator(mode="before")
    @classmethod
    def _own_source(cls, value: Any) -> Any:
        """Without a word on the source, every task has an embedded default; a default may name its task."""
        data = value.get("data", {}) if isinstance(value, Mapping) else None
        given = value.get("task") if isinstance(value, Mapping) else None
        if not isinstance(data, Mapping) or not isinstance(given, str):
            return value
        task = {source: task for task, source in own_sources().items()}.get(given, given)
        source = own_sources().get(task)
        if source is None and ":" in task:
            with suppress(InputError):  # of a task that is only shown, and cannot be imported here
                source = builder_of(task).own_source or None
        if source is None:
            return value
        if given == source and str(data.get("source", source)) != source:
            raise InputError("data.source", str(data["source"]), f"none but {source} with task={source}")
        return {**value, "task": task, "data": {"source": source, **data}}

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
            raise InputError("cohort", self.cohort, f"at most {self.clients}, the clients there are")
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
                raise InputError("threats", f"{kind} twice", "once: its clients are in it together")
        total = sum(getattr(threat.step, "share", 0) for threat in self.threats)
        if total > 1:
            raise InputError("threats", f"shares of {total:g} in all", "at most 1")
        noises = TaskBuilder.noises if self.task == OWN else builder_of(self.task).noises
        for kind in ("label_noise", "token_noise"):
            if kind in kinds and kind not in noises:
                expected = f"another with task={self.task}, which has no such thing"
                raise InputError("threats", kind, expected)
        return self

    @model_validator(mode="after")
    def _client_selection_fits(self) -> Self:
        chosen = f"with client_selection.selector={self.client_selection.name_of('selector')}"
        if not self.client_selection.chooses:
            return self
        if not self.aggregation.rule.averages:
            expected = f"mean or norm_clip {chosen}: what is not sent is no change of zero"
            raise InputError("aggregation.rule", self.rule_name, expected)
        if self.colluding:
            raise InputError("threats", "a_little_is_enough", f"another {chosen}, which it knows nothing of")
        return self

    @property
    def rule_name(self) -> str:
        """The aggregation rule as the settings name it."""
        return self.aggregation.name_of("rule")

    @property
    def colluding(self) -> bool:
        """Whether some clients make up together what they send."""
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
                f"fewer than rounds, {self.rounds}: else every round is warm-up, and no block is ever chosen",
                "Set both; selection.selector=full updates every block in every round.",
            )
        return self

    @model_validator(mode="after")
    def _norms_with_the_mean(self) -> Self:
        selector = self.selection.selector
        if "client_norms" in selector.asked() and not self.aggregation.rule.takes_sums:
            own = hasattr(selector, "metric")
            raise InputError(
                "selection.metric" if own else "selection.selector",
                selector.ranks_by if own else self.selection.name_of("selector"),
                f"another with aggregation.rule={self.rule_name}: agreement is how long the clients' "
                f"mean is for the length of their changes",
                "Use aggregation.rule=mean.",
            )
        return self

    def parts(self) -> Iterator[Any]:
        """See `Section`; the task and the data of a Federation are parts too."""
        yield from super().parts()
        if self.own is not None:
            data = self.own.data
            functions = (held for held in (data.train, data.held_out, data.collate_fn) if callable(held))
            yield from (self.own.task, *functions)

    def to_yaml(self) -> str:
        """The complete settings as YAML."""
        # A Federation has brought what these sections would describe.
        unused = {"partition", "model", "pretraining"} if self.task == OWN else None
        return dump_yaml(self.model_dump(mode="json", exclude=unused))
