"""Calls a user's loss or metric, either with the model and the batch or with outputs and targets."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, cast

from torch import Tensor, nn

from fedtlu_fast.data.form import TARGETS
from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.memory import is_out_of_memory

Function = Callable[..., Any]
Kind = Literal["model", "outputs"]
MODELS = frozenset({"model", "module", "net", "network"})
BATCHES = frozenset({"batch", "samples"})
OUTPUTS = frozenset(
    {
        "input", "output", "outputs", "logits", "pred", "preds", "prediction", "predictions", "probs",
        "scores", "y_pred", "y_hat",
    }
)  # fmt: skip
TRUTHS = frozenset(
    {"target", "targets", "label", "labels", "y", "y_true", "truth", "tags", "expected", "true"}
)  # fmt: skip


class Forward:
    """A batch and one forward pass over it, which runs when a loss or metric first needs the outputs."""

    def __init__(self, model: nn.Module, batch: Any) -> None:
        """Keeps model and batch without running the model.

        Args:
            model: the model.
            batch: the batch, in the form of the user's data.
        """
        self.model, self.batch = model, batch

    @cached_property
    def outputs(self) -> Any:
        """The model's output for the batch without its targets, or the output's ``logits`` if it has them."""
        inputs, named, _ = self._split
        found = self.model(*inputs, **named)
        logits = getattr(found, "logits", None)
        return found if logits is None else logits

    @property
    def targets(self) -> Any:
        """The last entry of a tuple, or the entry of a dictionary whose key is in `TARGETS`."""
        return self._split[2]

    @cached_property
    def _split(self) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
        batch = self.batch
        if isinstance(batch, Mapping):
            names = [name for name in TARGETS if name in batch]
            if len(names) != 1:
                expected = f"one of the keys {', '.join(TARGETS)}, for the targets"
                raise InputError("batch", sorted(map(str, batch)), expected, FIX)
            return (), {name: own for name, own in batch.items() if name != names[0]}, batch[names[0]]
        if isinstance(batch, tuple) and len(batch) > 1:
            return batch[:-1], {}, batch[-1]
        given = "a tensor" if isinstance(batch, Tensor) else f"a tuple of {len(batch)}"
        raise InputError("batch", given, "inputs and targets, as a tuple or a dictionary", FIX)


FLOAT32 = "Models are trained in float32, whatever they were made in: give inputs as tensor.float()."
FIX = "Or give a loss that is called with the model and the batch: loss(model, batch)."


@dataclass(frozen=True)
class Called:
    """A user's loss or metric as a function of a `Forward`.

    Attributes:
        function: the user's function.
        kind: whether it is called with model and batch ("model"), or with outputs and targets ("outputs").
    """

    function: Function
    kind: Kind

    @classmethod
    def of(cls, function: Function, field: str) -> Called:
        """Makes it from a function, whose parameters say how it is called; see `kind_of`."""
        return cls(function, kind_of(function, field))

    def __call__(self, forward: Forward) -> Any:
        """Calls the function and returns its result."""
        if self.kind == "model":
            return self.function(forward.model, forward.batch)
        return self.function(forward.outputs, forward.targets)


def name_of(function: Function) -> str:
    """Returns the name of a user's function for messages; of an object it is the class's name."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


@contextmanager
def blaming(field: str, name: str, batch: Any) -> Iterator[None]:
    """Reports an error inside the context as an error of one of the user's functions.

    Args:
        field: the argument that gave the function.
        name: the function's name.
        batch: the batch with which it was called, for the message.

    Raises:
        InputError: the function raised an error; the message names the shapes of the batch.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        expected = f"something that works on a batch of {_shapes(batch)}; it raised {cause(error)}"
        raise InputError(field, name, expected, FLOAT32 if "dtype" in str(error) else "") from error


def _shapes(value: Any) -> str:
    """Returns the shapes of the tensors in a batch, for messages."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {_shapes(own)}' for name, own in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_shapes, value))})"
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def kind_of(function: Function, field: str) -> Kind:
    """Tells whether a function is called as ``function(model, batch)`` or ``function(outputs, targets)``.

    The names of its first two parameters decide, or the annotation of the first.

    Args:
        function: the user's loss or metric.
        field: name of the function in messages.

    Raises:
        InputError: the names do not say how to call the function, or targets come first.
    """
    if not callable(function):
        raise InputError(field, function, "a function of (model, batch) or of (outputs, targets)")
    first, second = _parameters(function)
    if first is None or second is None:
        raise InputError(field, function, "a function with two positional parameters")
    names = first.name.lower(), second.name.lower()
    note = first.annotation
    annotated = (
        "Module" in note if isinstance(note, str) else inspect.isclass(note) and issubclass(note, nn.Module)
    )
    if annotated or names[0] in MODELS or names[1] in BATCHES:
        return "model"
    if names[0] in TRUTHS and names[1] in OUTPUTS:
        expected = "a function of (outputs, targets), in this order"
        raise InputError(field, f"a function of ({first.name}, {second.name})", expected, "Wrap it in one.")
    if names[0] in OUTPUTS or names[1] in TRUTHS:
        return "outputs"
    raise InputError(
        field,
        f"a function of ({first.name}, {second.name})",
        "parameters called (model, batch) or (outputs, targets), which say how it is called",
        "Rename its parameters.",
    )


def _parameters(function: Function) -> tuple[inspect.Parameter | None, inspect.Parameter | None]:
    called = function.forward if isinstance(function, nn.Module) else function
    try:
        known = list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):
        return None, None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = [parameter for parameter in known if parameter.kind in kinds]
    return (found[0], found[1]) if len(found) > 1 else (None, None)


def unreduced(function: Function, field: str) -> Function | None:
    """Returns a loss of PyTorch that yields a number for each prediction; None for other functions.

    Args:
        function: such as `torch.nn.functional.cross_entropy`, a `functools.partial` of it, or a
            `torch.nn.CrossEntropyLoss`.
        field: name of the function in messages.

    Raises:
        InputError: the loss of PyTorch is a sum over the batch, which depends on the batch's size.
    """
    if isinstance(function, nn.Module):
        reduction = getattr(function, "reduction", None)
        if reduction is None or not type(function).__module__.startswith("torch.nn"):
            return None
        found = copy.copy(function)
        found.reduction = cast("Any", "none")
        made: Function = found
    else:
        inner, given = function, dict[str, Any]()
        while isinstance(inner, partial):
            given, inner = {**inner.keywords, **given}, inner.func
        if not getattr(inner, "__module__", "").startswith("torch.nn"):
            return None
        if "reduction" not in inspect.signature(inner).parameters:
            return None
        reduction = given.get("reduction", "mean")
        made = partial(function, reduction="none")
    if reduction == "sum":
        raise InputError(field, "a loss with reduction='sum'", "reduction='mean', which most losses have")
    return made


def ignored_label(function: Function) -> int | None:
    """Returns the label that a loss of PyTorch ignores; None if it ignores none."""
    if isinstance(function, nn.Module):
        found: int | None = getattr(function, "ignore_index", None)
        return found
    try:
        parameter = inspect.signature(function).parameters.get("ignore_index")
    except (TypeError, ValueError):
        return None
    return None if parameter is None else parameter.default
