"""Defines the settings of training: on the clients, and before the first round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    model_validator,
)

from fedtlu_fast.clients.local import Local
from fedtlu_fast.clients.optimizer import AdamW, Optimizer, Sgd, TorchOptimizer
from fedtlu_fast.config.chooser import Chooser
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.errors import InputError


class TrainingConfig(PartsSection):
    """Says how a client trains on its samples. The papers state none of these numbers."""

    optimizer: Annotated[Optimizer, Chooser("optimizer", function=TorchOptimizer)] = Field(
        Sgd(),
        description="the clients' optimizer: sgd | adamw | package.module:Name (also a function from "
        "parameters to a torch.optim.Optimizer); its state starts anew in every round",
    )
    batch_size: int = Field(8, ge=1, description="samples per step")
    local_steps: int | None = Field(None, ge=1, description="steps per round; excludes local_epochs")
    local_epochs: float | None = Field(
        None,
        gt=0,
        description="passes over the client's samples per round, such as 0.5; excludes local_steps",
    )
    clip_norm: float | None = Field(
        1.0,
        gt=0,
        description="largest L2 norm of a step's gradient, longer ones are scaled down; null: no limit",
    )
    proximal_mu: float = Field(
        0.0, ge=0, description="FedProx's mu, which adds mu/2 ||w - w0||^2 to the loss; 0: FedAvg"
    )

    @property
    def local(self) -> Local:
        """Returns the `Local` that these settings describe."""
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
        """Replaces a `Local` by the settings that describe it."""
        if not isinstance(given, Local):
            return super().spelled_out(given)
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
        """Sets one epoch if neither steps nor epochs are given."""
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
    """Describes pre-training before round 1: central epochs on samples that no client holds (ours)."""

    epochs: float = Field(
        0.0,
        ge=0,
        description="passes over the samples that are set aside for pre-training; 0: no pre-training",
    )
    share: float = Field(
        0.2, gt=0, lt=1, description="share of the training samples that is set aside for pre-training"
    )
    seed: int = Field(
        0,
        ge=0,
        description="seed of the initial weights, of the samples set aside and of their batches; it is not "
        "the run's seed, so that runs with different seeds start from the same model",
    )
    optimizer: Annotated[Optimizer, Chooser("optimizer", function=TorchOptimizer)] = Field(
        AdamW(), description="the optimizer of pre-training: sgd | adamw | package.module:Name"
    )
    batch_size: int = Field(32, ge=1, description="samples per step")

    @property
    def local(self) -> Local:
        """Returns pre-training as a `Local`, the description of a client's training."""
        return Local(optimizer=self.optimizer, epochs=self.epochs, batch_size=self.batch_size)
