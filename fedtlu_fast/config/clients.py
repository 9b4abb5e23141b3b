"""Settings: the model, what a client does with its samples, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    model_validator,
)

from fedtlu_fast.clients.local import Local
from fedtlu_fast.clients.optimizer import AdamW, Optimizer, Sgd, TorchOptimizer
from fedtlu_fast.config.parts_section import Chooser, PartsSection
from fedtlu_fast.errors import InputError


class TrainingConfig(PartsSection):
    """What a client does with its samples. The papers state none of these numbers."""

    optimizer: Annotated[Optimizer, Chooser("optimizer", function=TorchOptimizer)] = Field(
        Sgd(),
        description="sgd | adamw | package.module:Name, which may be a function parameters -> "
        "torch.optim.Optimizer; its state starts anew in every round",
    )
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

    @property
    def local(self) -> Local:
        """What these settings describe."""
        return Local(
            optimizer=self.optimizer,
            steps=self.local_steps,
            epochs=self.local_epochs,
            batch_size=self.batch_size,
            clip_norm=self.clip_norm,
            proximal_mu=self.proximal_mu,
        )

    @classmethod
    def spelled_out(cls, given: Any) -> Any:
        """See `Section`: a `Local` is the settings that describe it."""
        if not isinstance(given, Local):
            return given
        return {
            "optimizer": given.optimizer,
            "local_steps": given.steps,
            "local_epochs": given.epochs,
            "batch_size": given.batch_size,
            "clip_norm": given.clip_norm,
            "proximal_mu": given.proximal_mu,
        }

    @model_validator(mode="before")
    @classmethod
    def _one_epoch(cls, value: Any) -> Any:
        """One pass where neither steps nor epochs are given."""
        if isinstance(value, Mapping) and not {"local_steps", "local_epochs"} & value.keys():
            return {**value, "local_epochs": 1.0}
        return value

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> Self:
        if (self.local_steps is None) == (self.local_epochs is None):
            given = {"local_steps": self.local_steps, "local_epochs": self.local_epochs}
            raise InputError("local_steps", given, "exactly one of the two", "Set the other to null.")
        return self


class PretrainingConfig(PartsSection):
    """A start that stands for pre-training: central epochs on samples that no client holds (ours)."""

    epochs: float = Field(0.0, ge=0, description="passes over the samples set aside; 0: none is")
    share: float = Field(0.2, gt=0, lt=1, description="of the training samples, set aside for it")
    seed: int = Field(
        0, ge=0, description="of initial weights, share and batches: runs of every seed begin alike"
    )
    optimizer: Annotated[Optimizer, Chooser("optimizer", function=TorchOptimizer)] = Field(
        AdamW(), description="sgd | adamw | package.module:Name"
    )
    batch_size: int = Field(32, ge=1, description="samples in a step")

    @property
    def local(self) -> Local:
        """The same as a client's training."""
        return Local(optimizer=self.optimizer, epochs=self.epochs, batch_size=self.batch_size)
