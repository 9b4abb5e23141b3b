"""Settings: how changes become one, which blocks are applied, what is tested and kept."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from typing import Any, Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from fedtlu_fast.block_metrics import Metric, ScoredLayers
from fedtlu_fast.blocks import Granularity
from fedtlu_fast.config.section import Section
from fedtlu_fast.errors import InputError
from fedtlu_fast.places import at_home
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.selection import SELECTORS, Ungrouped, make_selector


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
    scored_layers: ScoredLayers = Field(
        "all",
        description="which layers make a block's score: all | matrices | vectors (norms and biases); whole "
        "blocks are applied",
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
    "max_share": ("rule", ("mean", "norm_clip")),
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
    max_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="mean, norm_clip: largest share of one client in a round's weights, at least 1 / cohort; "
        "weights are cut by the samples of all that train; null: none",
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

    @field_validator("spill")
    @classmethod
    def _at_home(cls, value: str | None) -> str | None:
        return None if value is None else str(at_home(value))

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
