"""The settings of a run: what they are and their limits. How they are read is in `settings`.

One small model per room of the package; `RunConfig` joins them. Every setting that the papers leave open
says so; the defaults are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from fedtlu_fast.block_metrics import Metric
from fedtlu_fast.blocks import Granularity
from fedtlu_fast.errors import InputError
from fedtlu_fast.ops.dispatch import DEVICE_PATTERN
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.selection import SELECTORS, Ungrouped, make_selector

EXECUTOR_PATTERN = r"^(auto|serial|vectorized|processes|ray(:.+)?)$"


class Section(BaseModel):
    """Settings refuse unknown keys and cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any) -> Any:
        # pydantic would read true as 1; no setting is a switch.
        if isinstance(value, bool):
            raise ValueError("not true or false")
        return value


class SyntheticConfig(Section):
    """Clients by rule (data.source=synthetic), after FedProx's Synthetic(alpha, beta), arXiv 1812.06127."""

    features: int = Field(60, ge=1, description="numbers in one sample")
    model_variance: float = Field(1.0, ge=0, description="alpha: how far the clients' own models differ")
    input_variance: float = Field(1.0, ge=0, description="beta: how far the clients' inputs differ")
    fewest: int = Field(20, ge=2, description="samples of the client that holds least")
    most: int = Field(40, ge=2, description="samples of the client that holds most; uniform in between")

    @model_validator(mode="after")
    def _most_is_more(self) -> Self:
        if self.most < self.fewest:
            raise InputError("most", self.most, f"at least {self.fewest}, as in fewest")
        return self


class DataConfig(Section):
    """Which samples there are, and how text is cut into them."""

    source: str = Field(
        "pydoc",
        description="pydoc | text:PATH (a UTF-8 file or a directory) | hf:NAME[@REVISION] | synthetic | "
        "arrays:DIR (.npy files with an index of the clients)",
    )
    vocabulary: int = Field(
        2000, ge=8, le=2**31 - 1, description="words kept if the model brings no tokenizer; others are <unk>"
    )
    window: int = Field(32, ge=2, description="tokens in one sample")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of each source kept for the global test")
    local_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of each client's samples kept for its own test"
    )
    classes: int = Field(10, ge=2, description="labels of a classification")
    synthetic: SyntheticConfig = SyntheticConfig()


class PartitionConfig(Section):
    """How samples are dealt to clients."""

    name: Literal["iid", "dirichlet", "natural"] = Field(
        "dirichlet",
        description="iid | dirichlet (over sources) | natural (whole sources: one topic per client)",
    )
    alpha: float = Field(0.1, gt=0, description="dirichlet's concentration: small is far from IID")
    min_samples: int = Field(4, ge=2, description="no client gets fewer samples than this (ours)")


class ModelConfig(Section):
    """Language modelling: a GPT-2 of any size, or pre-trained weights. Classification: an MLP."""

    pretrained: str | None = Field(
        None, description="a model name or a local directory; then the sizes below are unused"
    )
    layers: int = Field(6, ge=1, description="transformer blocks")
    width: int = Field(64, ge=1, description="embedding width")
    heads: int = Field(4, ge=1, description="attention heads; divides the width")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (64,), description="classification: widths of the hidden layers"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.pretrained is None and self.width % self.heads:
            raise InputError("heads", self.heads, f"a divisor of the width, {self.width}")
        return self


class TrainingConfig(Section):
    """What a client does with its samples. The papers state none of these numbers."""

    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="sgd | adamw; its state starts anew in every round"
    )
    lr: float = Field(0.5, gt=0, description="learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(0.0, ge=0, description="of either optimizer")
    batch_size: int = Field(8, ge=1, description="samples in a step")
    local_steps: int | None = Field(None, ge=1, description="steps a round; or give local_epochs")
    local_epochs: float | None = Field(
        None, gt=0, description="passes over the client's samples a round, may be 0.5"
    )
    clip_norm: float | None = Field(
        1.0, gt=0, description="largest L2 norm of a step's gradient; null: no limit"
    )
    proximal_mu: float = Field(
        0.0, ge=0, description="FedProx's mu: adds mu/2 ||w - w0||^2 to the loss; 0 is FedAvg"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_epoch(cls, value: Any) -> Any:
        """Without a word on either, one pass."""
        if isinstance(value, Mapping) and not {"local_steps", "local_epochs"} & value.keys():
            return {**value, "local_epochs": 1.0}
        return value

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> Self:
        if (self.local_steps is None) == (self.local_epochs is None):
            given = {"local_steps": self.local_steps, "local_epochs": self.local_epochs}
            raise InputError("local_steps", given, "exactly one of the two", "Set the other to null.")
        if self.optimizer == "adamw" and self.momentum:
            raise InputError("momentum", self.momentum, "0 with adamw, which has its own")
        return self


class SelectionConfig(Section):
    """Which blocks of the aggregated change are applied."""

    selector: str = Field("fedtlu", description=" | ".join(SELECTORS))
    keep: int | float | dict[str, int | float] = Field(
        2,
        description="blocks kept per group: 2, a fraction 0.5, or {group: either}",
    )
    granularity: Granularity = Field("block", description="what is chosen: tensor | module | block")
    ungrouped: Ungrouped = Field(
        "always", description="blocks without a like (embeddings, head): always | never updated"
    )
    metric: Metric = Field(
        "excess",
        description="what fedtlu ranks by: excess (Eq. 1) | l2_per_parameter | relative_change | agreement "
        "(between the clients); the last three are ours",
    )
    ddof: Literal[0, 1] = Field(
        1, description="which std Eq. 1 means: 0 population, 1 sample; the paper does not say"
    )
    pooling: Pooling = Field(
        "mean", description="a block's score: mean of its layers' scores | pooled as one layer"
    )

    @field_validator("keep", mode="before")
    @classmethod
    def _some_blocks(cls, value: Any) -> Any:
        # 1 and 1.0 differ here (one block, the whole group), and nothing else may become either.
        named = value if isinstance(value, Mapping) else {"": value}
        for name, number in named.items():
            whole = isinstance(number, int) and not isinstance(number, bool) and number >= 1
            share = isinstance(number, float) and 0 < number <= 1
            if not isinstance(name, str) or not (whole or share):
                raise ValueError("1 block or more, a fraction in (0, 1], or {group: either} for every group")
        return value

    @field_validator("selector")
    @classmethod
    def _known(cls, value: str) -> str:
        make_selector(value)
        return value


class EvaluationConfig(Section):
    """When and on what the model is tested."""

    every: int = Field(1, ge=1, description="global test every so many rounds, and after the last")
    local_every: int = Field(10, ge=1, description="local test every so many rounds, and after the last")
    local_clients: int | None = Field(
        1000, ge=1, description="clients in the local test, drawn once if there are more; null: all"
    )
    trained_clients: int = Field(
        10, ge=0, description="clients that train once more after the last round for the local test"
    )
    batch_size: int = Field(64, ge=1, description="samples in one forward pass of a test")


class CheckpointConfig(Section):
    """How much a kill can cost."""

    every: int = Field(5, ge=1, description="rounds between checkpoints; there is always one at the end")
    minutes: float | None = Field(
        None, gt=0, description="also one after so many minutes without; null: by rounds only"
    )
    retain: int = Field(2, ge=1, description="checkpoints kept")


class AggregationConfig(Section):
    """How the clients' changes become one."""

    rule: Literal["mean", "median", "trimmed_mean"] = Field(
        "mean",
        description="mean (FedAvg) | median | trimmed_mean; the last two keep the whole cohort's vectors",
    )
    trim: float = Field(
        0.1, ge=0, lt=0.5, description="trimmed_mean: share of the clients cut off at each end, per number"
    )
    spill: str | None = Field(
        None, description="median, trimmed_mean: directory for the cohort's vectors; null: in memory"
    )


class ExecutionConfig(Section):
    """Who trains the clients of a round. The result depends on `at_once`, `engine` and `lanes` alone."""

    executor: str = Field(
        "auto",
        pattern=EXECUTOR_PATTERN,
        description="auto (by a short measurement) | serial | vectorized | processes | ray[:ADDRESS]",
    )
    workers: int | None = Field(
        None, ge=1, le=4096, description="of processes and ray; null: as many as there are cores"
    )
    at_once: int | None = Field(
        None,
        ge=1,
        description="clients that a worker trains at once (vectorised); 1: one after another; null: 1, but "
        "vectorized takes what fits, and auto measures",
    )
    engine: Literal["torch", "compiled"] | None = Field(
        None,
        description="what computes a client's steps: torch | compiled (C++, for perceptrons on the CPU; "
        "at_once: clients in one call); null: torch, but auto measures",
    )
    lanes: int = Field(
        64, ge=1, description="partial sums a round; results of another number differ in the last bits"
    )
    client_seconds: float | None = Field(
        None,
        gt=0,
        description="a client that trains longer has failed (processes and ray; of clients trained at once, "
        "one whose data take longer); null: no limit",
    )
    client_errors: Literal["stop", "drop"] = Field(
        "stop", description="a client fails: stop the run, which can be resumed | leave it out and report it"
    )
    retries: int = Field(
        3, ge=0, description="how often a lane that lost its worker is trained again before the run stops"
    )


def partition_shorthand(value: Any) -> Any:
    """``dirichlet:0.1`` for ``{name: dirichlet, alpha: 0.1}``."""
    if not isinstance(value, str):
        return value
    name, _, alpha = value.partition(":")
    return {"name": name, "alpha": alpha} if alpha else {"name": name}


class RunConfig(Section):
    """One federation, complete: with the same RunConfig a run gives the same bits."""

    task: Literal["language_modelling", "classification"] = Field(
        "language_modelling", description="what the model learns: language_modelling | classification"
    )
    seed: int = Field(0, ge=0, description="of every draw in the run")
    rounds: int = Field(40, ge=1, description="rounds in all, warm-up included")
    warmup_rounds: int = Field(0, ge=0, description="first rounds that update every block")
    clients: int = Field(100, ge=1, description="clients in the federation")
    cohort: int = Field(10, ge=1, description="clients that train in a round, drawn uniformly")
    server_lr: float = Field(1.0, gt=0, description="factor on the averaged change")
    device: str = Field("cpu", pattern=DEVICE_PATTERN, description="cpu | cuda | cuda:N")
    threads: int | None = Field(1, ge=1, le=4096, description="CPU threads of one run; null: torch decides")
    backend: Literal["auto", "reference", "native", "triton"] = Field(
        "auto", description="who runs the kernels"
    )
    data: DataConfig = DataConfig()
    partition: Annotated[PartitionConfig, BeforeValidator(partition_shorthand)] = PartitionConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    aggregation: AggregationConfig = AggregationConfig()
    selection: SelectionConfig = SelectionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _cohort_fits(self) -> Self:
        if self.cohort > self.clients:
            raise InputError("cohort", self.cohort, f"at most {self.clients}, the clients there are")
        return self

    @model_validator(mode="after")
    def _rule_sees_each_client(self) -> Self:
        vectorized = self.execution.executor == "vectorized" or (self.execution.at_once or 1) > 1
        if self.aggregation.rule != "mean" and vectorized:
            raise InputError(
                "aggregation.rule",
                self.aggregation.rule,
                "mean with clients trained several at once, whose sum is all that is kept",
                "Use execution.at_once=1.",
            )
        return self

    @model_validator(mode="after")
    def _agreement_with_the_mean(self) -> Self:
        if self.selection.metric == "agreement" and self.aggregation.rule != "mean":
            raise InputError(
                "selection.metric",
                self.selection.metric,
                f"another with aggregation.rule={self.aggregation.rule}: agreement is how long the clients' "
                f"mean is for the length of their changes",
                "Use aggregation.rule=mean.",
            )
        return self

    def to_yaml(self) -> str:
        """The complete settings as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
