"""Settings: the model, what a client does with its samples, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from fedtlu_fast.config.section import Section
from fedtlu_fast.errors import InputError


class LoraConfig(Section):
    """Low-rank adapters on frozen weights (arXiv 2106.09685), through peft; rank 0: none, all is trained.

    Trained, sent and chosen among are the adapters and, but for language modelling, the task's head.
    """

    rank: int = Field(0, ge=0, description="of the adapters; 0: no adapters")
    alpha: int = Field(16, ge=1, description="what adapters add is scaled by alpha / rank")
    targets: Annotated[
        tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)
    ] = Field(
        ("all-linear",),
        min_length=1,
        description="names of linear layers, or how they end, such as c_attn; all-linear: all but the head",
    )


class ModelConfig(Section):
    """A model of any size, or pre-trained weights. Classification of vectors: an MLP."""

    pretrained: str | None = Field(
        None,
        description="a model name, a local directory or a .gguf file; then what is below is unused",
    )
    architecture: Literal["gpt2", "transformer", "cnn", "resnet", "vit"] | None = Field(
        None,
        description="text: gpt2 | transformer (ours); images: cnn (ours) | resnet | vit; null: gpt2 for "
        "language modelling, transformer for tagging, cnn for images",
    )
    layers: int = Field(6, ge=1, description="blocks")
    width: int = Field(64, ge=1, description="embedding width; channels of a CNN or a ResNet's first stage")
    heads: int = Field(4, ge=1, description="attention heads; divides the width")
    norm: Literal["group", "batch", "none"] = Field(
        "group", description="of a CNN's and a ResNet's channels: group | batch | none"
    )
    patch: int = Field(4, ge=1, description="side of the squares that a ViT reads; divides the images' sides")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (64,), description="classification: widths of the hidden layers"
    )
    lora: LoraConfig = LoraConfig()

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        attends = self.pretrained is None and self.architecture not in ("cnn", "resnet")
        if attends and self.width % self.heads:
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
