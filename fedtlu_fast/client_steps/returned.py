"""Checks the results of client steps' hooks, because a step may be the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from fedtlu_fast.client_steps.step import ClientStep
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.errors import InputError


def check_start(name: str, step: ClientStep, start: ClientStart, changed: ClientStart) -> None:
    """Checks the start that a step returns.

    Args:
        name: the step's name.
        step: the step, whose `changes` name the fields that it may change.
        start: the start that the step received.
        changed: the start that the step returned.

    Raises:
        InputError: the step changed another field; only `own_model` may change parameters and buffers.
    """
    wrong = [
        what
        for what, before, after in (
            ("params", start.params, changed.params),
            ("buffers", start.buffers, changed.buffers),
        )
        if before is not after
    ]
    wrong += [
        what
        for what in ("samples", "blocks", "correction", "second")
        if getattr(start, what) is not getattr(changed, what) and what not in step.changes
    ]
    if wrong:
        raise InputError(
            f"client_steps.{name}",
            f"another {wrong[0]} from before()",
            f"one of {', '.join(sorted(step.changes))}, as its `changes` names them",
            "A model of the client's own comes from own_model().",
        )


def check_update(name: str, given: ClientUpdate, update: Any) -> None:
    """Checks the update that a step returns.

    Args:
        name: the step's name.
        given: the update that the step received.
        update: the object that the step returned.

    Raises:
        InputError: it is not an update, its vectors or its weight are of another kind, or its memory cannot
            be saved.
    """
    if not isinstance(update, ClientUpdate):
        raise wrong_kind(name, "after", update, "the ClientUpdate")
    for what in ("params", "buffers"):
        before, after = getattr(given, what), getattr(update, what)
        if before is after:
            continue
        if not isinstance(after, Tensor) or after.shape != before.shape or after.dtype != before.dtype:
            shape = (
                f"{after.dtype} {tuple(after.shape)}" if isinstance(after, Tensor) else type(after).__name__
            )
            expected = f"a tensor of {before.dtype} and shape {tuple(before.shape)}, as it got"
            raise InputError(f"client_steps.{name}: {what}", shape, expected)
    weight = update.weight
    if weight is not None and (
        isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf")
    ):
        raise InputError(
            f"client_steps.{name}: weight", weight, "a number from 0 on", "Use float(...) on a tensor."
        )
    if not isinstance(update.memory, Mapping):
        raise InputError(f"client_steps.{name}: memory", update.memory, "a mapping from names to values")
    for key, value in update.memory.items():
        if not isinstance(key, str) or not _fits_a_checkpoint(value):
            expected = "a number or a NumPy array of numbers, which checkpoints can hold"
            raise InputError(
                f"client_steps.{name}: memory[{key!r}]", value, expected, "tensor.cpu().numpy() makes one."
            )


def wrong_kind(name: str, hook: str, value: Any, expected: str) -> InputError:
    """Returns the error for a step whose hook returns an object of the wrong kind."""
    return InputError(f"client_steps.{name}: {hook}()", value, f"{expected} that it returns")


def _fits_a_checkpoint(value: Any) -> bool:
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "iuf" or value.dtype == np.bool_
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    )
