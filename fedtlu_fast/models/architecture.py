"""The interface of an architecture, which makes a fresh model that fits the data.

To write your own, give a `torch.nn.Module` class, or a function that returns a module. It receives the sizes
of the data by the names of the arguments that it declares (see `OwnModel`).
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

from fedtlu_fast.errors import InputError, cause, shorten
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
    """The sizes and kinds of inputs and outputs that the data need a model to have.

    Attributes:
        predicts: whether the model predicts the next token at every token ("next token"), a label of every
            token ("every token") or a label of the whole sample ("sample").
        inputs: number of numbers or tokens in one sample.
        outputs: number of logits of each prediction.
        vocabulary: number of token ids that the model reads; 0 if samples are not tokens.
        shape: channels, height and width of an image; empty if samples are not images.
        labels: names of the outputs; empty if they have none.
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
        """Returns the values that a user's own model may declare as arguments, by name."""
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
        """Makes the model; its initial weights depend on the seed only.

        Args:
            needs: the sizes and kinds of inputs and outputs.
            seed: the run's seed.

        Raises:
            InputError: the parameters do not fit the data.
        """


@part
class OwnModel(Architecture):
    """A model of the user's own.

    For tokens [B, T] the model returns logits [B, T, outputs]; in a text classification it may also return
    [B, outputs]. If its ``forward`` has an argument ``real``, it receives a mask [B, T] bool that is false at
    padding. For images [B, C, H, W] and vectors [B, F], which are float32, it returns logits [B, outputs].

    Attributes:
        maker: a subclass of `torch.nn.Module`, or a function that returns a module. It may declare the
            arguments inputs, outputs, labels; for tokens also vocabulary, length, padding; for images also
            shape, channels.
        settings: its other arguments, by name.
    """

    maker: Callable[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(self, needs: Needs, seed: int) -> nn.Module:
        """See `Architecture`. Torch's global generator is seeded while the maker runs."""
        known, offered = declared(self.maker), needs.arguments()
        given = {**self.settings, **{name: value for name, value in offered.items() if name in known}}
        name = spelled("model", self.maker)
        for lacking, default in known.items():
            if default is inspect.Parameter.empty and lacking not in given:
                expected = f"a maker whose arguments these data have, which are {', '.join(offered)}"
                raise InputError("model.architecture", f"{name}, which needs {lacking}", expected)
        with torch_seeded(seed, INITIAL):
            try:
                model = self.maker(**given)
            except InputError:
                raise
            except Exception as error:
                arguments = ", ".join(f"{one}={shorten(value)}" for one, value in given.items())
                expected = f"a maker that makes a module of ({arguments}); it raised {cause(error)}"
                raise InputError("model.architecture", name, expected) from error
        if not isinstance(model, nn.Module):
            raise InputError("model.architecture", name, "a maker that returns a torch.nn.Module")
        return model


def declared(maker: Callable[..., Any]) -> dict[str, Any]:
    """Returns the arguments that a maker declares, by name, with their defaults.

    An argument without a default has `inspect.Parameter.empty`.
    """
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(maker).parameters.values()
    return {parameter.name: parameter.default for parameter in found if parameter.kind in named}


@part
class TaskDefault(Architecture):
    """The default architecture of the task, in these sizes.

    Attributes:
        layers: number of blocks.
        width: embedding width; in a CNN the number of channels, in a ResNet that of the first stage.
        heads: number of attention heads; has to divide the width.
        norm: normalisation of a CNN's or a ResNet's channels: group | batch | none.
        patch: side in pixels of the squares that a ViT reads; has to divide the images' sides.
        hidden: widths of the hidden layers of a perceptron (classification).
    """

    layers: Size = 6
    width: Size = 64
    heads: Size = 4
    norm: Norm = "group"
    patch: Size = 4
    hidden: tuple[Size, ...] = (64,)

    def build(self, needs: Needs, seed: int) -> nn.Module:
        """Raises a TypeError, because the composition root replaces it by the task's own architecture."""
        raise TypeError("the task's own architecture takes the place of this one")


def check_heads(width: int, heads: int) -> None:
    """Checks that the number of attention heads divides the width.

    Raises:
        InputError: it does not.
    """
    if width % heads:
        raise InputError("heads", heads, f"a divisor of the width, {width}")


def named(labels: tuple[str, ...]) -> dict[str, Any]:
    """Returns the arguments that give the names of labels to a configuration of `transformers`."""
    names = dict(enumerate(labels))
    return {"id2label": names, "label2id": {label: code for code, label in names.items()}}


def of_transformers(model: nn.Module) -> bool:
    """Tells whether it is a model of `transformers`, which has named inputs and outputs."""
    library = sys.modules.get("transformers")
    return library is not None and isinstance(model, library.PreTrainedModel)


def takes_real(model: nn.Module) -> bool:
    """Tells whether the model's ``forward`` has an argument ``real``, which is false at padding."""
    return "real" in inspect.signature(model.forward).parameters
