"""Checks the results of client steps' halves on the server, because a step may be the user's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import float_info
from typing import Any

from torch import Tensor

from fedtlu_fast.client_steps.step import Arrival, ClientStep, RoundChange, ServerHalf, Vectors
from fedtlu_fast.errors import InputError, kind_of

FIELD = "client_steps"
"""The setting that errors of a step's half on the server name."""


def check_half(step: ClientStep, half: Any) -> ServerHalf:
    """Returns the result of a step's `server_half` after checking that it is a `ServerHalf`."""
    if not isinstance(half, ServerHalf):
        raise _wrong(step, "server_half", half, "a ServerHalf")
    return half


def check_arrival(half: ServerHalf, method: str, found: Any, vectors: Vectors) -> Arrival:
    """Returns an arrival that a half passes on after checking it.

    Args:
        half: the half.
        method: its method that returned the arrival.
        found: the object that it returned.
        vectors: parameters [P] and buffers [Q] of the right shapes and dtypes.

    Raises:
        InputError: it is no `Arrival`, or its vectors or its weight are of another kind.
    """
    if not isinstance(found, Arrival):
        raise _wrong(half, method, found, "an Arrival")
    if not isinstance(found.vectors, tuple) or len(found.vectors) != 2:
        raise _wrong(half, method, found.vectors, "an Arrival with a pair of vectors")
    for name, own, like in zip(("params", "buffers"), found.vectors, vectors, strict=True):
        _check_vector(half, method, f"an Arrival whose {name} are", own, like)
    weight = found.weight
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= float_info.max:
        raise _wrong(half, method, f"weight={weight!r}", "an Arrival with a finite weight from 0 on")
    return found


def check_held_back(half: ServerHalf, found: Any) -> Iterable[Any]:
    """Returns the result of a half's `finish` after checking that it is a collection."""
    if not isinstance(found, Iterable) or isinstance(found, Arrival | Tensor | Mapping | str):
        raise _wrong(half, "finish", found, "a list of Arrival objects, or yield them")
    return found


def check_completed(half: ServerHalf, given: RoundChange, found: Any) -> RoundChange:
    """Returns the result of a half's `complete` after checking it.

    Args:
        half: the half.
        given: the change that it received.
        found: the object that it returned.

    Raises:
        InputError: it is no `RoundChange`, or its vectors are of another kind.
    """
    if not isinstance(found, RoundChange):
        raise _wrong(half, "complete", found, "the RoundChange")
    _check_vector(half, "complete", "a RoundChange whose change is", found.change, given.change)
    what = "a RoundChange whose buffers_change is"
    _check_vector(half, "complete", what, found.buffers_change, given.buffers_change)
    return found


def _check_vector(half: ServerHalf, method: str, what: str, found: Any, like: Tensor) -> None:
    if not isinstance(found, Tensor) or found.shape != like.shape or found.dtype != like.dtype:
        expected = f"{what} a tensor of {like.dtype} and shape {tuple(like.shape)}"
        raise _wrong(half, method, found, expected)


def _wrong(part: object, method: str, found: Any, expected: str) -> InputError:
    return InputError(FIELD, kind_of(found), f"{type(part).__name__}.{method}() to return {expected}")
