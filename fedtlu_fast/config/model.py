"""Defines the settings of the model."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator
from torch import nn

from fedtlu_fast.config.chooser import Chooser, Unfound
from fedtlu_fast.config.parts_section import PartsSection
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
    """Marks the field that holds an architecture; null stands for the default of the task."""

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
        """See `Chooser`; arguments that the data determine, such as the classes, are no settings."""
        if _makes_modules(found):
            return {name: name for name in declared(found) if name not in ARGUMENTS}
        return super().settings_of(found)

    def takes(self, found: Any, base: type) -> bool:
        """See `Chooser`."""
        return _makes_modules(found) or super().takes(found, base)

    def spelled_out(self, field: str, text: str) -> dict[str, Any]:
        """See `Chooser`; sizes of a model have to be given by their names."""
        return {field: text}

    def read(self, field: str, given: Any, tree: dict[str, Any]) -> Any:
        """See `Chooser`."""
        if given is None:
            own = self.settings_of(TaskDefault)
            return make(TaskDefault, {name: tree.pop(name) for name in own if name in tree})
        found = self.found(field, given) if isinstance(given, str) else given
        if _makes_modules(found):
            own = self.settings_of(found)
            settings = {name: tree.pop(name) for name in own if name in tree}
            for name, default in declared(found).items():
                if default is inspect.Parameter.empty and name in own and name not in settings:
                    raise InputError(name, None, f"a value: {found.__name__} has no default for it")
            return OwnModel(found, settings)
        made = super().read(field, given, tree)
        if not isinstance(made, Architecture):
            raise InputError(field, given, "an architecture, or a class or function that makes a module")
        return made


def _makes_modules(found: Any) -> bool:
    return inspect.isfunction(found) or (inspect.isclass(found) and issubclass(found, nn.Module))


class LoraConfig(Section):
    """Describes low-rank adapters on frozen weights (arXiv 2106.09685), which the peft library makes.

    With adapters, clients train and send only the adapters and, except in language modelling, the task's
    head; the blocks to choose from are made of these.
    """

    rank: int = Field(
        0, ge=0, description="rank of the LoRA adapters; 0: no adapters, all weights are trained"
    )
    alpha: int = Field(16, ge=1, description="an adapter's output is scaled by alpha / rank")
    targets: Annotated[
        tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)
    ] = Field(
        ("all-linear",),
        min_length=1,
        description="linear layers that get adapters: names or endings of names, such as c_attn; all-linear: "
        "all except the head",
    )


class ModelConfig(PartsSection):
    """Describes the model: an architecture of any size with random weights, or pre-trained weights."""

    pretrained: str | None = Field(
        None,
        description="pre-trained weights: a model name, a local directory or a .gguf file; with it, only "
        "model.lora is used of the other settings of the model",
    )
    architecture: Annotated[Architecture, ArchitectureChooser()] = Field(
        TaskDefault(),
        description="architecture of a model without pre-trained weights. Text: gpt2 | transformer (ours). "
        "Images: cnn (ours) | resnet | vit. Vectors: mlp. Any: package.module:Name, a class or function that "
        "makes a module. null: gpt2 for language modelling, transformer for tagging and text classification, "
        "cnn for images, mlp for vectors",
    )
    lora: LoraConfig = LoraConfig()

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        own = self.architecture
        if self.pretrained is None and not isinstance(own, Unfound) and isinstance(own, TaskDefault):
            check_heads(own.width, own.heads)
        return self
