"""Methods that work in a state of PyTorch that is the run's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar


class HasState(Protocol):
    """A run, or another object with a state of PyTorch of its own."""

    def own_state(self) -> AbstractContextManager[None]:
        """Returns the context of that state."""
        ...


Self = TypeVar("Self", bound=HasState)
Given = ParamSpec("Given")
Result = TypeVar("Result")


def isolated(
    method: Callable[Concatenate[Self, Given], Result],
) -> Callable[Concatenate[Self, Given], Result]:
    """Returns the method of an object such that it works in the object's own state of PyTorch."""

    @wraps(method)
    def inside(self: Self, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        with self.own_state():
            return method(self, *args, **kwargs)

    return inside
