"""Checks of what the hooks of client steps return, which may be a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from fedtlu_fast.client_steps.step import ClientStep
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.errors import InputError


def check_start(name: str, step: ClientStep, start: ClientStart, changed: ClientStart) -> None:
    """Refuses what a step must not make of a client's start.

    Args:
        name: of the step.
        step: names in its `changes` what it may change.
        start: that the step got.
        changed: that it returned.

    Raises:
        InputError: the step changed something else; the parameters and buffers are `own_model`'s to change.
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
    """Refuses what a step must not make of an update.

    Args:
        name: of the step.
        given: the update that the step got.
        update: what it returned.

    Raises:
        InputError: it is no update, its vectors or weight are of another kind, or what it remembers cannot be
            saved.
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
    """The error of a step whose hook returns something else than it has to."""
    return InputError(f"client_steps.{name}: {hook}()", value, f"{expected} that it returns")


def _fits_a_checkpoint(value: Any) -> bool:
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "iuf" or value.dtype == np.bool_
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    )
