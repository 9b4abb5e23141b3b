"""Settings: who trains the clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from fedtlu_fast.config.section import Section
from fedtlu_fast.errors import InputError

EXECUTOR_PATTERN = r"^(auto|serial|vectorized|processes|ray(:.+)?)$"


class ExecutionConfig(Section):
    """Who trains the clients of a round, and in what arithmetic.

    The result depends on `clients_per_batch`, `engine`, `compile`, `precision` and `lanes`.
    """

    renamed: ClassVar[Mapping[str, str]] = {"at_once": "clients_per_batch"}

    executor: str = Field(
        "auto",
        pattern=EXECUTOR_PATTERN,
        description="auto (measured: one process or more) | serial | vectorized | processes | ray[:ADDRESS]",
    )
    workers: int | None = Field(
        None, ge=1, le=4096, description="of processes and ray; null: as many as there are cores"
    )
    clients_per_batch: int | None = Field(
        None,
        ge=1,
        description="clients that a worker trains at once (vectorised); 1: one after another; null: 1, but "
        "vectorized takes what fits, and auto has a rule on model and settings",
    )
    engine: Literal["torch", "compiled"] | None = Field(
        None,
        description="what computes a client's steps: torch | compiled (C++, for perceptrons on the CPU; "
        "clients_per_batch: clients in one call); null: torch, but auto has a rule on the model",
    )
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = Field(
        "none",
        description="torch.compile for clients trained one after another: none | one of its modes "
        "(reduce-overhead: CUDA graphs); takes a minute first, and batches of one shape",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of a client's forward and backward pass: float32 | bfloat16 (torch.autocast; "
        "parameters, gradients, tests and the central start stay float32)",
    )
    lanes: int = Field(
        64, ge=1, description="partial sums a round; results of another number differ in the last bits"
    )
    client_seconds: float | None = Field(
        None,
        gt=0,
        description="of processes and ray: a client whose data, probe or training take longer in a round "
        "has failed (n clients trained at once have n times as long), and a worker that is silent, or a "
        "process of compare that is stopped, for longer is replaced; tests and the trainings after the last "
        "round are the run's own and have no limit; null: no limit",
    )
    client_errors: Literal["stop", "drop"] = Field(
        "stop", description="a client fails: stop the run, which can be resumed | leave it out and report it"
    )
    retries: int = Field(
        3,
        ge=0,
        description="how often a lane that lost its worker is trained again, and how often compare replaces "
        "stopped processes, before the run stops",
    )

    @model_validator(mode="after")
    def _compiles_single_clients(self) -> Self:
        together = (
            self.executor == "vectorized" or (self.clients_per_batch or 1) > 1 or self.engine == "compiled"
        )
        if self.compile != "none" and together:
            expected = "none with clients trained at once, or in C++: it is for one after another"
            raise InputError("compile", self.compile, expected)
        if self.precision != "float32" and self.engine == "compiled":
            raise InputError("precision", self.precision, "float32 with engine=compiled, which has no other")
        return self
