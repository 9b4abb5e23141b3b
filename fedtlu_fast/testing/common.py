"""What all checks of parts use."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

from torch import Tensor

from fedtlu_fast.errors import FedtluError, InputError, cause
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.parts import make, values
from fedtlu_fast.registry import find, spelled

CLIENTS = 5
LAYOUT = ParameterLayout.from_shapes(
    {
        "embedding.weight": (6, 3),
        **{f"h.{at}.{name}": shape for at in range(4) for name, shape in (("w", (3, 3)), ("b", (3,)))},
        **{f"g.{at}.w": (5, 2) for at in range(3)},
        "head.weight": (4, 3),
    }
)
"""The model of the checks: blocks without a like, and two groups of like blocks."""


# Computed now: a layout keeps them, and a check would take them for a change.
WARM = (LAYOUT.size, LAYOUT.names, LAYOUT.offsets, LAYOUT.unique, LAYOUT.grouped_share)


class ConformanceError(FedtluError, AssertionError):
    """A part breaks a promise of its interface; the message says which."""


def found_again(kind: str, made: Any) -> Any:
    """The part after pickling, made anew of its name and parameters.

    What a script or a notebook defines has no name for others; it is only pickled.

    Raises:
        ConformanceError: it cannot be pickled, or found again.
    """
    inner = getattr(made, "function", None)
    thing = inner if callable(inner) else type(made)
    try:
        copy = pickle.loads(pickle.dumps(made))  # noqa: S301 (bytes that were made one call before)
    except Exception as error:
        raise ConformanceError(f"it cannot be pickled, as processes and Ray need: {cause(error)}") from error
    must(type(copy) is type(made), "pickling gives an object of another class")
    if thing.__module__ == "__main__":
        return copy
    try:
        again = find(kind, spelled(kind, thing), kind)
        must(again is thing, f"its name, {spelled(kind, thing)}, is that of something else")
        return type(made)(again) if inspect.isfunction(again) else make(again, values(copy))
    except InputError as error:
        raise ConformanceError(f"it cannot be found again by its name and parameters: {error}") from error


def must(kept: bool, message: str) -> None:
    """Raises `ConformanceError` with this message unless a promise is kept."""
    if not kept:
        raise ConformanceError(message)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two vectors have the same bits."""
    return one.dtype == other.dtype and one.numpy().tobytes() == other.numpy().tobytes()


def bits(thing: Any) -> bytes:
    """Bytes that change when anything inside changes."""
    return pickle.dumps(thing)
