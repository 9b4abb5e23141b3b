"""Settings: who trains the clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fedtlu_fast.config.chooser import Chooser
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.errors import InputError
from fedtlu_fast.executors.executor import ExecutorPart
from fedtlu_fast.executors.parts import RETRIES, Auto, Vectorized
from fedtlu_fast.parts import make, parameters


class ExecutionConfig(PartsSection):
    """Who trains the clients of a round, and in what arithmetic.

    The result depends on `clients_per_batch`, `engine`, `compile`, `precision` and `lanes`.
    """

    renamed: ClassVar[Mapping[str, str]] = {"at_once": "clients_per_batch"}

    executor: Annotated[ExecutorPart, Chooser("executor", base=ExecutorPart)] = Field(
        Auto(),
        description="where clients train: auto (measured: one process or more) | serial | vectorized | "
        "processes | ray[:ADDRESS] | package.module:Name",
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
    client_errors: Literal["stop", "drop"] = Field(
        "stop", description="a client fails: stop the run, which can be resumed | leave it out and report it"
    )

    @classmethod
    def spelled_out(cls, given: Any) -> Any:
        """See `PartsSection`; an address has colons in it, and one process ignores ``workers``."""
        name = given.get("executor") if isinstance(given, Mapping) else None
        if isinstance(name, str) and name.startswith("ray:"):
            return {**given, "executor": "ray", "address": name.removeprefix("ray:")}
        found = super().spelled_out(given)
        if isinstance(found, Mapping) and found.get("executor") in ("serial", "vectorized"):
            return {name: value for name, value in found.items() if name != "workers"}
        return found

    def with_policy_of(self, other: ExecutionConfig) -> ExecutionConfig:
        """Returns these settings with the others' policy on clients that fail or hang, and on lost workers.

        Raises:
            InputError: This executor cannot follow that policy.
        """
        kind, policy = type(self.executor), {"client_seconds", "retries"}
        known = parameters(kind)
        if not policy & known.keys():
            return self.model_copy(update={"client_errors": other.client_errors})
        own = {name: getattr(other if name in policy else self.executor, name) for name in known}
        try:
            executor = make(kind, own)
        except InputError as error:
            raise error.of(f"execution.{error.field}") from None
        return self.model_copy(update={"executor": executor, "client_errors": other.client_errors})

    @property
    def client_seconds(self) -> float | None:
        """Returns the number of seconds that a client may take; None: there is no limit."""
        seconds: float | None = getattr(self.executor, "client_seconds", None)
        return seconds

    @property
    def retries(self) -> int:
        """Returns how often a lost lane, or a stopped process of a comparison, is tried again."""
        return int(getattr(self.executor, "retries", RETRIES))

    @model_validator(mode="after")
    def _compiles_single_clients(self) -> Self:
        together = (
            isinstance(self.executor, Vectorized)
            or (self.clients_per_batch or 1) > 1
            or self.engine == "compiled"
        )
        if self.compile != "none" and together:
            expected = "none with clients trained at once, or in C++: it is for one after another"
            raise InputError("compile", self.compile, expected)
        if self.precision != "float32" and self.engine == "compiled":
            raise InputError("precision", self.precision, "float32 with engine=compiled, which has no other")
        return self
