"""Settings: how changes become one, what is tested and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedtlu_fast.aggregation import AggregationRule, FunctionRule, Mean, Plain, ServerOptimizer
from fedtlu_fast.config.parts_section import Chooser, PartsSection
from fedtlu_fast.config.section import Section


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
    flops: Literal["auto", "always", "never"] = Field(
        "auto",
        description="whether the run measures its FLOPs for costs.json: auto (where clients choose what they "
        "train or send, and in comparisons with such arms) | always | never",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="the run ends after so many global tests in a row without a lower loss; tests of the "
        "warm-up do not count; null: it runs all its rounds",
    )


class CheckpointConfig(Section):
    """How much a kill can cost."""

    every: int = Field(5, ge=1, description="rounds between checkpoints; there is always one at the end")
    minutes: float | None = Field(
        None, gt=0, description="also one after so many minutes without; null: by rounds only"
    )
    retain: int = Field(2, ge=1, description="checkpoints kept")
    best: bool = Field(
        False, description="also keep the model with the lowest loss in the global tests that were due"
    )


SERVER_OPTIMIZER = Chooser("server_optimizer", prefix="server_", base=ServerOptimizer)


class AggregationConfig(PartsSection):
    """How the clients' changes become one, and what step the server makes of it."""

    rule: Annotated[AggregationRule, Chooser("rule", function=FunctionRule, base=AggregationRule)] = Field(
        Mean(),
        description="mean (FedAvg) | median | trimmed_mean | krum | multi_krum | norm_clip | "
        "package.module:Name; all but mean, and norm_clip with a number for clip, keep the whole cohort's "
        "vectors",
    )
    server_optimizer: Annotated[ServerOptimizer, SERVER_OPTIMIZER] = Field(
        Plain(),
        description="what makes the step of the chosen layers: none (FedAvg) | momentum (FedAvgM) | adam "
        "(FedAdam; it wants a far smaller server_lr, such as 0.03) | package.module:Name",
    )

    renamed: ClassVar[Mapping[str, str]] = {"multi_krum": "kept"}
