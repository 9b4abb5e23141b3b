"""The settings of a run: what they are and their limits. How they are read is in `settings`.

One small model per room of the package; `RunConfig` joins them. Every setting that the papers leave open
says so; the defaults are ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fedtlu_fast.block_metrics import Metric
from fedtlu_fast.blocks import Granularity
from fedtlu_fast.errors import InputError
from fedtlu_fast.ops.dispatch import DEVICE_PATTERN
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.selection import SELECTORS, Ungrouped, make_selector

PTB_WORDS = 10_000
EXECUTOR_PATTERN = r"^(auto|serial|vectorized|processes|ray(:.+)?)$"


class Section(BaseModel):
    """Settings refuse unknown keys and cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would read true as 1; few settings are switches.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
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
        description="pydoc (default) | text:PATH (a UTF-8 file or a directory) | ptb:DIR (ptb.*.txt) | "
        "pycode (tagging, its default) | udpos:PATH (tagging; CoNLL-U) | hf:NAME[:CONFIG][@REVISION] | "
        "synthetic | arrays:DIR (.npy files with an index of the clients)",
    )
    vocabulary: int = Field(
        2000,
        ge=8,
        le=2**31 - 1,
        description="words kept if the model brings no tokenizer; others are <unk> (10000 for ptb:DIR)",
    )
    window: int = Field(32, ge=2, description="tokens in one sample")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of each source kept for the global test")
    local_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of each client's samples kept for its own test"
    )
    classes: int = Field(10, ge=2, description="labels of a classification")
    synthetic: SyntheticConfig = SyntheticConfig()

    @model_validator(mode="before")
    @classmethod
    def _own_vocabulary(cls, value: Any) -> Any:
        """Without a word on it, Penn Treebank keeps its own, to which its rare words were cut already."""
        if isinstance(value, Mapping) and str(value.get("source")).startswith("ptb:"):
            return {"vocabulary": PTB_WORDS, **value}
        return value


PARTITION_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "iid": (),
    "dirichlet": ("by", "alpha", "self_balancing"),
    "inner_dirichlet": ("by", "alpha", "partition_sizes"),
    "pathological": ("by", "num_classes_per_partition", "class_assignment_mode"),
    "shard": ("by", "num_shards_per_partition", "shard_size", "keep_incomplete_shard"),
    "natural": ("by",),
    "grouped_natural": ("by", "group_size", "group_mode"),
    "linear": (),
    "square": (),
    "exponential": (),
}
"""Which settings a partition goes by, besides `min_samples`; the others have to keep their defaults."""


class PartitionConfig(Section):
    """How samples are dealt to clients; names are those of Flower Datasets' arguments."""

    name: Literal[
        "iid",
        "dirichlet",
        "inner_dirichlet",
        "pathological",
        "shard",
        "natural",
        "grouped_natural",
        "linear",
        "square",
        "exponential",
    ] = Field(
        "dirichlet",
        description="iid | dirichlet[:ALPHA] | inner_dirichlet[:ALPHA] | pathological[:CLASSES] | "
        "shard[:SHARDS] | natural (whole documents, topics, ...) | grouped_natural[:SIZE] | linear, square, "
        "exponential (sizes alone differ)",
    )
    by: str | None = Field(
        None, description="what of the samples it goes by, such as label or document; null: the data's first"
    )
    alpha: float = Field(
        0.1, gt=0, description="[inner_]dirichlet: concentration; small is far from IID, large near"
    )
    self_balancing: bool = Field(
        True, description="dirichlet: who holds an equal share already gets nothing of further values"
    )
    partition_sizes: tuple[Annotated[int, Field(ge=2)], ...] | None = Field(
        None, description="inner_dirichlet: samples of each client; null: equal"
    )
    num_classes_per_partition: int = Field(2, ge=1, description="pathological: values of each client")
    class_assignment_mode: Literal["random", "deterministic", "first-deterministic"] = Field(
        "random", description="pathological: random | deterministic (c, c + 1, ...) | first-deterministic"
    )
    num_shards_per_partition: int | None = Field(
        2, ge=1, description="shard: shards of each client; null: as shard_size gives"
    )
    shard_size: int | None = Field(
        None, ge=1, description="shard: samples of one; null: as large as the samples allow"
    )
    keep_incomplete_shard: bool = Field(
        False, description="shard, with shard_size alone: whether the samples left at the end are one too"
    )
    group_size: int = Field(2, ge=1, description="grouped_natural: values in a group")
    group_mode: Literal["allow-smaller", "allow-bigger", "drop-reminder", "strict"] = Field(
        "allow-smaller", description="grouped_natural: what happens to values that do not fill a group"
    )
    min_samples: int = Field(4, ge=2, description="no client gets fewer samples than this (ours)")

    @model_validator(mode="after")
    def _only_what_it_uses(self) -> Self:
        used = {"name", "min_samples", *PARTITION_ARGUMENTS[self.name]}
        _check_unused(self, used, f"name={self.name}")
        return self


class ParticipationConfig(Section):
    """Who takes part in a round: who can, who is drawn, and who drops out again."""

    sampler: Literal["uniform", "size", "loss", "fixed"] = Field(
        "uniform",
        description="uniform | size (by samples held) | loss (of candidates those with the largest last "
        "training loss) | fixed (the same in every round)",
    )
    candidates: int | None = Field(
        None, ge=1, description="loss: clients drawn by size, of which the cohort is; null: twice the cohort"
    )
    members: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, description="fixed: the clients' numbers; null: drawn once"
    )
    trace: str | None = Field(
        None, description="file of the rounds in which clients can take part (.csv or .json); null: all can"
    )
    duty: float = Field(1.0, gt=0, le=1, description="share of a period in which a client can take part")
    period: int = Field(10, ge=1, description="duty: rounds of a period; each client begins its own")
    over: float = Field(
        1.0, ge=1, description="draw this times the cohort, and keep as many as the cohort that answer first"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="chance that a client that was drawn does not answer")

    def drawn(self, cohort: int) -> int:
        """How many clients are drawn for a cohort."""
        # The factor as it is written: 1.1 times 10 is 11, though the float product is more.
        return ceil(Fraction(str(self.over)) * cohort)

    @model_validator(mode="after")
    def _only_what_it_uses(self) -> Self:
        used = {"sampler", "trace", "duty", "period", "over", "dropout"}
        _check_unused(
            self,
            used | {"loss": {"candidates"}, "fixed": {"members"}}.get(self.sampler, set()),
            f"sampler={self.sampler}",
        )
        if self.trace is not None or self.duty == 1:
            _check_unused(
                self, set(type(self).model_fields) - {"duty", "period"}, "trace" if self.trace else "duty=1"
            )
        if round(self.duty * self.period) < 1:
            raise InputError("duty", self.duty, f"at least one round of the {self.period} of a period")
        if len(set(self.members or ())) < len(self.members or ()):
            raise InputError("members", self.members, "each client once")
        return self


def _check_unused(section: Section, used: Collection[str], chosen: str) -> None:
    """Settings that mean nothing beside what was chosen have to be at their defaults."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if name not in used and value != info.default:
            raise InputError(
                name, value, f"{info.default} with {chosen}, which does not use it", "Leave it out."
            )


class ModelConfig(Section):
    """Language modelling and tagging: a model of any size, or pre-trained weights. Classification: an MLP."""

    pretrained: str | None = Field(
        None,
        description="a model name, a local directory or a .gguf file; then what is below is unused",
    )
    architecture: Literal["gpt2", "transformer"] | None = Field(
        None,
        description="gpt2 | transformer (ours); null: gpt2 for language modelling, transformer for tagging",
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


class PretrainingConfig(Section):
    """A start that stands for pre-training: central epochs on samples that no client holds (ours)."""

    epochs: float = Field(0.0, ge=0, description="passes over the samples set aside; 0: none is")
    share: float = Field(0.2, gt=0, lt=1, description="of the training samples, set aside for it")
    seed: int = Field(
        0, ge=0, description="of initial weights, share and batches: runs of every seed begin alike"
    )
    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="sgd | adamw")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    batch_size: int = Field(32, ge=1, description="samples in a step")

    @property
    def training(self) -> TrainingConfig:
        """The same as a client's settings."""
        return TrainingConfig(
            optimizer=self.optimizer, lr=self.lr, batch_size=self.batch_size, local_epochs=self.epochs
        )


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


KRUM = ("krum", "multi_krum")
AGGREGATION_USERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "byzantine": ("rule", KRUM),
    "multi_krum": ("rule", ("multi_krum",)),
    "clip": ("rule", ("norm_clip",)),
    "server_momentum": ("server_optimizer", ("momentum",)),
    "server_beta1": ("server_optimizer", ("adam",)),
    "server_beta2": ("server_optimizer", ("adam",)),
    "server_tau": ("server_optimizer", ("adam",)),
}
"""Settings that mean something only beside certain values of another; otherwise they keep their defaults."""


class AggregationConfig(Section):
    """How the clients' changes become one, and what step the server makes of it."""

    rule: Literal["mean", "median", "trimmed_mean", "krum", "multi_krum", "norm_clip"] = Field(
        "mean",
        description="mean (FedAvg) | median | trimmed_mean | krum | multi_krum | norm_clip; all but mean, "
        "and norm_clip with a number for clip, keep the whole cohort's vectors",
    )
    trim: float = Field(
        0.1, ge=0, lt=0.5, description="trimmed_mean: share of the clients cut off at each end, per number"
    )
    byzantine: int | float = Field(
        0.2,
        description="krum, multi_krum: f, how many clients of a cohort may be malicious: 2, or a share 0.2, "
        "rounded up; 2 f + 2 < cohort",
    )
    multi_krum: int | None = Field(
        None, ge=1, description="multi_krum: how many clients are kept; null: all that arrived but f"
    )
    clip: float | None = Field(
        None,
        gt=0,
        description="norm_clip: largest L2 norm of a change; null: the median of the round's",
    )
    spill: str | None = Field(
        None, description="directory for the cohort's vectors, for rules that keep them; null: in memory"
    )
    server_optimizer: Literal["none", "momentum", "adam"] = Field(
        "none",
        description="what makes the step of the chosen layers: none (FedAvg) | momentum (FedAvgM) | adam "
        "(FedAdam; it wants a far smaller server_lr, such as 0.03)",
    )
    server_momentum: float = Field(0.9, ge=0, lt=1, description="momentum: share of the last step")
    server_beta1: float = Field(0.9, ge=0, lt=1, description="adam: decay of the mean of the changes")
    server_beta2: float = Field(0.99, ge=0, lt=1, description="adam: decay of the mean of their squares")
    server_tau: float = Field(1e-3, gt=0, description="adam: the larger, the less adaptive")

    @field_validator("byzantine", mode="before")
    @classmethod
    def _some_clients(cls, value: Any) -> Any:
        # 0 and 0.0 mean the same here, 1 and 1.0 do not, and text is neither.
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if not whole and not (isinstance(value, float) and 0 <= value < 0.5):
            raise ValueError("0 clients or more, or a share in [0, 0.5)")
        return value

    @model_validator(mode="after")
    def _only_what_it_uses(self) -> Self:
        for name, (chooser, users) in AGGREGATION_USERS.items():
            value, default = getattr(self, name), type(self).model_fields[name].default
            chosen = getattr(self, chooser)
            if value != default and chosen not in users:
                expected = f"{default} with {chooser}={chosen}, which does not use it"
                raise InputError(name, value, expected, f"Leave it out, or use {' or '.join(users)}.")
        return self

    @property
    def stacks(self) -> bool:
        """Whether the rule keeps the vectors of a whole cohort."""
        return self.rule != "mean" and (self.rule != "norm_clip" or self.clip is None)

    def tolerated(self, cohort: int) -> int:
        """Krum's f for a cohort of this size; a share is rounded up."""
        if isinstance(self.byzantine, int):
            return self.byzantine
        # The share as it is written: 0.1 of 30 is 3, though the float product is more.
        return ceil(Fraction(str(self.byzantine)) * cohort)


class ThreatConfig(Section):
    """What is wrong with some clients; see `threats`. Two threats strike different clients."""

    kind: Literal[
        "label_noise",
        "token_noise",
        "label_flip",
        "noise",
        "sign_flip",
        "scaling",
        "random",
        "shift",
        "a_little_is_enough",
    ] = Field(
        description="data: label_noise | token_noise | label_flip (label l becomes the last but l); update: "
        "noise | sign_flip | scaling | random (noise alone) | shift (a constant, which raises Eq. 1) | "
        "a_little_is_enough (arXiv 1902.06156)"
    )
    share: float = Field(0.2, gt=0, le=1, description="of the clients")
    strength: float | None = Field(
        None,
        gt=0,
        le=1e38,
        description="label_noise, token_noise: share of what is replaced (0.5); sign_flip, scaling: factor "
        "on the change (1; 10); noise, random, shift: in root mean squares of the layer's change (1); "
        "a_little_is_enough: its z (as far as hides it); null: these",
    )
    layers: str = Field("*", description="shift: the layers it is for, a pattern such as *ln_1*")

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Self:
        if self.kind.endswith("_noise") and (self.strength or 0) > 1:
            raise InputError("strength", self.strength, f"at most 1, a share, with {self.kind}")
        if self.kind != "shift" and self.layers != "*":
            raise InputError("layers", self.layers, f"* with {self.kind}: only shift is for some layers")
        return self

    @property
    def force(self) -> float:
        """The strength, or the kind's own where none is given."""
        own = {"label_noise": 0.5, "token_noise": 0.5, "scaling": 10.0}.get(self.kind, 1.0)
        return own if self.strength is None else self.strength


class ExecutionConfig(Section):
    """Who trains the clients of a round. The result depends on `at_once`, `engine`, `compile` and `lanes`."""

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
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = Field(
        "none",
        description="torch.compile for clients trained one after another: none | one of its modes "
        "(reduce-overhead: CUDA graphs); takes a minute first, and batches of one shape",
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


SHORTHANDS = {
    "pathological": "num_classes_per_partition",
    "shard": "num_shards_per_partition",
    "grouped_natural": "group_size",
}
"""What the number after the partition's name is; after other names it is alpha."""


def partition_shorthand(value: Any) -> Any:
    """``dirichlet:0.1`` for ``{name: dirichlet, alpha: 0.1}``, ``shard:2`` for so many shards, and so on."""
    if not isinstance(value, str):
        return value
    name, _, number = value.partition(":")
    return {"name": name, SHORTHANDS.get(name, "alpha"): number} if number else {"name": name}


def threat_shorthand(value: Any) -> Any:
    """``sign_flip:0.2:3`` for ``{kind: sign_flip, share: 0.2, strength: 3}``; one or a list of them."""
    if isinstance(value, str | Mapping):
        value = [value]
    if not isinstance(value, Sequence):
        return value
    names = ("kind", "share", "strength")
    return [dict(zip(names, one.split(":"), strict=False)) if isinstance(one, str) else one for one in value]


class RunConfig(Section):
    """One federation, complete: with the same RunConfig a run gives the same bits."""

    task: Literal["language_modelling", "tagging", "classification"] = Field(
        "language_modelling",
        description="what the model learns: language_modelling | tagging | classification",
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
    partition: Annotated[PartitionConfig, BeforeValidator(partition_shorthand)] = PartitionConfig()
    participation: ParticipationConfig = ParticipationConfig()
    model: ModelConfig = ModelConfig()
    pretraining: PretrainingConfig = PretrainingConfig()
    training: TrainingConfig = TrainingConfig()
    aggregation: AggregationConfig = AggregationConfig()
    selection: SelectionConfig = SelectionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    threats: Annotated[tuple[ThreatConfig, ...], BeforeValidator(threat_shorthand)] = Field(
        (), description="noisy and malicious clients, such as sign_flip:0.2 (kind:share:strength); a list"
    )
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="before")
    @classmethod
    def _own_source(cls, value: Any) -> Any:
        """Without a word on the source, tagging has an embedded default of its own."""
        if isinstance(value, Mapping) and value.get("task") == "tagging":
            data = value.get("data", {})
            if isinstance(data, Mapping) and "source" not in data:
                return {**value, "data": {**data, "source": "pycode"}}
        return value

    @model_validator(mode="after")
    def _cohort_fits(self) -> Self:
        if self.cohort > self.clients:
            raise InputError("cohort", self.cohort, f"at most {self.clients}, the clients there are")
        return self

    @model_validator(mode="after")
    def _draw_fits(self) -> Self:
        participation, drawn = self.participation, self.participation.drawn(self.cohort)
        if drawn > self.clients:
            given = f"{participation.over} times a cohort of {self.cohort}"
            raise InputError("participation.over", given, f"at most {self.clients}, the clients there are")
        candidates, members = participation.candidates, participation.members
        if candidates is not None and not drawn <= candidates <= self.clients:
            expected = f"{drawn}, as many as are drawn, to {self.clients}, the clients there are"
            raise InputError("participation.candidates", candidates, expected)
        if members is not None and (len(members) != drawn or max(members) >= self.clients):
            expected = f"{drawn} clients, as many as are drawn, numbered from 0 to {self.clients - 1}"
            raise InputError("participation.members", members, expected)
        return self

    @model_validator(mode="after")
    def _rule_sees_each_client(self) -> Self:
        if self.execution.executor != "vectorized" and (self.execution.at_once or 1) == 1:
            return self
        expected = "with clients trained several at once, whose sum is all that is kept"
        if self.aggregation.rule != "mean":
            raise InputError(
                "aggregation.rule", self.aggregation.rule, f"mean {expected}", "Use execution.at_once=1."
            )
        if self.colluding:
            kind = "a_little_is_enough"
            raise InputError("threats", kind, f"another {expected}", "Use execution.at_once=1.")
        return self

    @model_validator(mode="after")
    def _threats_fit(self) -> Self:
        if sum(threat.kind == "a_little_is_enough" for threat in self.threats) > 1:
            raise InputError("threats", "a_little_is_enough twice", "once: its clients are in it together")
        total = sum(threat.share for threat in self.threats)
        if total > 1:
            raise InputError("threats", f"shares of {total:g} in all", "at most 1")
        refused = {"classification": "token_noise", "language_modelling": "label_noise"}.get(self.task)
        if any(threat.kind == refused for threat in self.threats):
            raise InputError("threats", refused, f"another with task={self.task}, which has no such thing")
        return self

    @property
    def colluding(self) -> bool:
        """Whether some clients make up together what they send."""
        return any(threat.kind == "a_little_is_enough" for threat in self.threats)

    @property
    def one_by_one(self) -> bool:
        """Whether the server has to see every client's vector."""
        return self.aggregation.rule != "mean" or self.colluding

    @model_validator(mode="after")
    def _krum_fits_cohort(self) -> Self:
        chosen, cohort = self.aggregation, self.cohort
        if chosen.rule not in KRUM:
            return self
        tolerated = chosen.tolerated(cohort)
        if cohort <= 2 * tolerated + 2:
            expected = f"f with 2 f + 2 < {cohort}, the cohort, for {chosen.rule}; this is f = {tolerated}"
            raise InputError("aggregation.byzantine", chosen.byzantine, expected, "Or use a larger cohort.")
        if chosen.multi_krum is not None and chosen.multi_krum > cohort:
            raise InputError("aggregation.multi_krum", chosen.multi_krum, f"at most {cohort}, the cohort")
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
