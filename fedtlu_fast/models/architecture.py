"""The interface of an architecture: a fresh model for some data, of the size that its parameters say.

To write your own, give a `torch.nn.Module` class, or a function that makes a module: it gets what the data
need as the named arguments that it declares (see `OwnModel`).
"""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.parts import part
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.registry import spelled

Predicts = Literal["next token", "every token", "sample"]
Size = Annotated[int, Field(ge=1)]
Norm = Literal["group", "batch", "none"]
INITIAL = "initial weights"
"""The purpose of the draws of a fresh model."""


@dataclass(frozen=True)
class Needs:
    """What data need of a model.

    Attributes:
        predicts: what the model predicts for: the token after each, every token, or a sample as a whole.
        inputs: numbers or tokens in one sample.
        outputs: numbers that it gives for each prediction.
        vocabulary: number of token ids that it reads; 0 where samples are no tokens.
        shape: channels, height and width of an image; empty where samples are no images.
        labels: names of the outputs, where they have names.
        padding: the token id that fills up samples.
    """

    predicts: Predicts
    inputs: int
    outputs: int
    vocabulary: int = 0
    shape: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    padding: int = 0

    def arguments(self) -> dict[str, Any]:
        """What a model of the user's may declare as an argument, by name."""
        always = {"inputs": self.inputs, "outputs": self.outputs, "labels": self.labels}
        tokens = {"vocabulary": self.vocabulary, "length": self.inputs, "padding": self.padding}
        images = {"shape": self.shape, "channels": self.shape[0]} if self.shape else {}
        return always | (tokens if self.vocabulary else {}) | images


ARGUMENTS = ("inputs", "outputs", "labels", "vocabulary", "length", "padding", "shape", "channels")
"""All names of `Needs.arguments`."""


class Architecture(ABC):
    """Makes a fresh model."""

    @abstractmethod
    def build(self, needs: Needs, seed: int) -> nn.Module:
        """The model, with weights that depend on the seed alone.

        Args:
            needs: what the data need.
            seed: of everything that is drawn.

        Raises:
            InputError: the parameters do not fit the data.
        """


@part
class OwnModel(Architecture):
    """A model of the user's.

    For tokens [B, T] the model gives [B, T, outputs], for a text classification also [B, outputs]; if its
    ``forward`` has an argument ``real``, it gets [B, T] bool there, False where a token only fills up. For
    images [B, C, H, W] and vectors [B, F], which are float32, it gives [B, outputs].

    Attributes:
        maker: a class of `torch.nn.Module`, or a function that returns one. It may declare arguments called
            inputs, outputs, labels; vocabulary, length, padding (of tokens); shape, channels (of images).
        settings: its other arguments, by name.
    """

    maker: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(self, needs: Needs, seed: int) -> nn.Module:
        """See `Architecture`; the global generators are seeded while the maker runs."""
        given = {name: value for name, value in needs.arguments().items() if name in declared(self.maker)}
        name = spelled("model", self.maker)
        with torch_seeded(seed, INITIAL):
            try:
                model = self.maker(**{**self.settings, **given})
            except InputError:
                raise
            except Exception as error:
                expected = (
                    f"a maker of a module that takes {', '.join(given) or 'no arguments'}; {cause(error)}"
                )
                raise InputError("model.architecture", name, expected) from error
        if not isinstance(model, nn.Module):
            raise InputError("model.architecture", name, "a maker that returns a torch.nn.Module")
        return model


def declared(maker: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that a maker declares by name, and their defaults; `inspect.Parameter.empty` for none."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(maker).parameters.values()
    return {parameter.name: parameter.default for parameter in found if parameter.kind in named}


@part
class TaskDefault(Architecture):
    """The architecture that the task has of its own, of these sizes.

    Attributes:
        layers: blocks.
        width: embedding width; channels of a CNN or a ResNet's first stage.
        heads: attention heads; divides the width.
        norm: of a CNN's and a ResNet's channels: group | batch | none.
        patch: side of the squares that a ViT reads; divides the images' sides.
        hidden: classification: widths of the hidden layers.
    """

    layers: Size = 6
    width: Size = 64
    heads: Size = 4
    norm: Norm = "group"
    patch: Size = 4
    hidden: tuple[Size, ...] = (64,)

    def build(self, needs: Needs, seed: int) -> nn.Module:
        """Raises an error: the task chooses first."""
        raise TypeError("a task makes its own architecture of this one")


def check_heads(width: int, heads: int) -> None:
    """Makes sure that the heads divide the width.

    Raises:
        InputError: they do not.
    """
    if width % heads:
        raise InputError("heads", heads, f"a divisor of the width, {width}")


def named(labels: tuple[str, ...]) -> dict[str, Any]:
    """The arguments by which configurations of `transformers` take the names of labels."""
    names = dict(enumerate(labels))
    return {"id2label": names, "label2id": {label: code for code, label in names.items()}}


def of_transformers(model: nn.Module) -> bool:
    """Whether it is a model of `transformers`, which takes and gives things by name."""
    library = sys.modules.get("transformers")
    return library is not None and isinstance(model, library.PreTrainedModel)


def takes_real(model: nn.Module) -> bool:
    """Whether the model's ``forward`` has an argument ``real``."""
    return "real" in inspect.signature(model.forward).parameters
