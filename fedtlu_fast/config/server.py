"""Defines the settings of the server: aggregation, tests and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedtlu_fast.aggregation import AggregationRule, FunctionRule, Mean, Plain, ServerOptimizer
from fedtlu_fast.config.chooser import Chooser
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.config.section import Section


class EvaluationConfig(Section):
    """Says when the model is tested, and on which samples."""

    every: int = Field(
        1, ge=1, description="rounds between global tests; there is always one after the last round"
    )
    local_every: int = Field(
        10, ge=1, description="rounds between local tests; there is always one after the last round"
    )
    local_clients: int | None = Field(
        1000,
        ge=1,
        description="largest number of clients in a local test; if there are more, as many are drawn once; "
        "null: all clients",
    )
    trained_clients: int = Field(
        10,
        ge=0,
        description="clients that train the final model once more on their own data, for a last local test",
    )
    batch_size: int = Field(64, ge=1, description="samples per forward pass in tests")
    held_out: int = Field(
        0,
        ge=0,
        description="samples of the global test that the server looks at before it chooses blocks, for "
        "evaluation.benefit and selectors such as oracle; the global test does not count them; 0: none",
    )
    local_held_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the samples of each client's local test that the client looks at before it "
        "chooses blocks, for client_selection.selector=oracle; local tests do not count them; 0: none",
    )
    benefit: bool = Field(
        False,
        description="whether every round records by how much each block alone would lower the loss on the "
        "held-out samples, beside all scores (selection.jsonl); takes a forward pass a block",
    )
    flops: Literal["auto", "always", "never"] = Field(
        "auto",
        description="when the run counts its FLOPs for costs.json: auto (if clients choose the blocks that "
        "they train or send, and in comparisons with such runs) | always | never",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="number of global tests in a row without a lower loss after which the run ends; tests in "
        "the warm-up do not count; null: the run never ends early",
    )


class CheckpointConfig(Section):
    """Says how often the state of a run is saved, so that a killed run can be resumed."""

    every: int = Field(5, ge=1, description="rounds between checkpoints; there is always one at the end")
    minutes: float | None = Field(
        None,
        gt=0,
        description="minutes after which a checkpoint is written although fewer rounds have passed; null: "
        "rounds alone decide",
    )
    retain: int = Field(2, ge=1, description="number of latest checkpoints that are kept")
    best: bool = Field(
        False, description="whether the model with the lowest loss in a scheduled global test is kept too"
    )


SERVER_OPTIMIZER = Chooser("server_optimizer", prefix="server_", base=ServerOptimizer)


class AggregationConfig(PartsSection):
    """Says how the clients' changes are aggregated, and which step the server takes with the result."""

    rule: Annotated[AggregationRule, Chooser("rule", function=FunctionRule, base=AggregationRule)] = Field(
        Mean(),
        description="how the clients' changes are aggregated: mean (FedAvg) | median | trimmed_mean | krum | "
        "multi_krum | norm_clip | geometric_median | centered_clipping | package.module:Name; mean, and "
        "norm_clip with a number for clip, need memory for a few vectors, the others for the "
        "vectors of the whole cohort",
    )
    server_optimizer: Annotated[ServerOptimizer, SERVER_OPTIMIZER] = Field(
        Plain(),
        description="how the server turns the aggregated change into a step: none (FedAvg) | momentum "
        "(FedAvgM) | adam (FedAdam; it needs a far smaller server_lr, such as 0.03) | package.module:Name",
    )

    renamed: ClassVar[Mapping[str, str]] = {"multi_krum": "kept"}
