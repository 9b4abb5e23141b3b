"""Settings: the model."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator
from torch import nn

from fedtlu_fast.config.parts_section import Chooser, PartsSection, Unfound
from fedtlu_fast.config.section import Section
from fedtlu_fast.errors import InputError
from fedtlu_fast.models.architecture import (
    ARGUMENTS,
    Architecture,
    OwnModel,
    TaskDefault,
    check_heads,
    declared,
)
from fedtlu_fast.parts import make
from fedtlu_fast.registry import spelled


@dataclass(frozen=True)
class ArchitectureChooser(Chooser):
    """Marks the field that holds an architecture; null stands for the task's own."""

    kind: str = "model"
    strict: bool = False

    def name_of(self, part: Any) -> Any:
        """See `Chooser`."""
        if isinstance(part, TaskDefault):
            return None
        return spelled(self.kind, part.maker) if isinstance(part, OwnModel) else super().name_of(part)

    def values_of(self, part: Any) -> dict[str, Any]:
        """See `Chooser`."""
        return dict(part.settings) if isinstance(part, OwnModel) else super().values_of(part)

    def settings_of(self, found: Any) -> dict[str, str]:
        """See `Chooser`; what the data need has no settings."""
        if _makes_modules(found):
            return {name: name for name in declared(found) if name not in ARGUMENTS}
        return super().settings_of(found)

    def read(self, field: str, given: Any, tree: dict[str, Any]) -> Any:
        """See `Chooser`."""
        if given is None:
            own = self.settings_of(TaskDefault)
            return make(TaskDefault, {name: tree.pop(name) for name in own if name in tree})
        found = self.found(field, given) if isinstance(given, str) else given
        if _makes_modules(found):
            own = self.settings_of(found)
            return OwnModel(found, {name: tree.pop(name) for name in own if name in tree})
        made = super().read(field, given, tree)
        if not isinstance(made, Architecture):
            raise InputError(field, given, "an architecture, or a class or function that makes a module")
        return made


def _makes_modules(found: Any) -> bool:
    return inspect.isfunction(found) or (inspect.isclass(found) and issubclass(found, nn.Module))


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


class ModelConfig(PartsSection):
    """A model of any size, or pre-trained weights. Classification of vectors: an MLP."""

    pretrained: str | None = Field(
        None,
        description="a model name, a local directory or a .gguf file; then what is below is unused",
    )
    architecture: Annotated[Architecture, ArchitectureChooser()] = Field(
        TaskDefault(),
        description="text: gpt2 | transformer (ours); images: cnn (ours) | resnet | vit; vectors: mlp; "
        "package.module:Name, a class or function that makes a module; null: gpt2 for language modelling, "
        "transformer for tagging, cnn for images",
    )
    lora: LoraConfig = LoraConfig()

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        own = self.architecture
        if self.pretrained is None and not isinstance(own, Unfound) and isinstance(own, TaskDefault):
            check_heads(own.width, own.heads)
        return self
