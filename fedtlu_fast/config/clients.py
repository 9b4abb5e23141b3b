"""Settings: the model, what a client does with its samples, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from fedtlu_fast.config.section import Section
from fedtlu_fast.errors import InputError


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
