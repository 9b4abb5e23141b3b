"""Checks the results of client steps' hooks, because a step may be the user's own."""

from __future__ import annotations

from itertools import pairwise
from numbers import Integral, Real
from sys import float_info
from typing import Any

from torch import Tensor

from fedtlu_fast.client_steps.step import ClientStep
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.data.population import Samples
from fedtlu_fast.errors import InputError, kind_of


def check_start(name: str, step: ClientStep, start: ClientStart, changed: ClientStart, blocks: int) -> None:
    """Checks the start that a step returns.

    Args:
        name: the step's name.
        step: the step, whose `changes` name the fields that it may change.
        start: the start that the step received.
        changed: the start that the step returned.
        blocks: number of blocks of the model.

    Raises:
        InputError: the step changed another field, of which only `own_model` may change parameters and
            buffers; or a field that it changed is of another kind.
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
        named = f"one of {', '.join(sorted(step.changes))}, as its `changes` names them"
        raise InputError(
            f"client_steps.{name}",
            f"another {wrong[0]} from before()",
            named if step.changes else "none, as its `changes` is empty",
            "A model of the client's own comes from own_model().",
        )
    if changed.correction is not None and changed.correction is not start.correction:
        _check_vector(name, "correction", changed.correction, changed.params)
    if not isinstance(changed.samples, Samples):
        raise InputError(f"client_steps.{name}: samples", kind_of(changed.samples), "the Samples, or others")
    if changed.blocks is not None and changed.blocks is not start.blocks:
        _check_blocks(name, "blocks", changed.blocks, blocks)


def check_update(name: str, given: ClientUpdate, update: Any, blocks: int, ordered: bool = True) -> None:
    """Checks the update that a step returns.

    Args:
        name: the step's name.
        given: the update that the step received.
        update: the object that the step returned.
        blocks: number of blocks of the model.
        ordered: whether clients send chosen blocks in this round. Otherwise the server averages all blocks.

    Raises:
        InputError: it is not an update, it names blocks where clients send all of them, or one of its fields
            is of another kind. Its memory is checked where it is taken in (`remembered`).
    """
    if not isinstance(update, ClientUpdate):
        raise wrong_kind(name, "after", update, "the ClientUpdate")
    for what in ("params", "buffers"):
        before, after = getattr(given, what), getattr(update, what)
        if before is after:
            continue
        _check_vector(name, what, after, before)
    for what in ("samples", "steps"):
        own = getattr(update, what)
        if isinstance(own, bool) or not isinstance(own, Integral) or own < 0:
            raise InputError(f"client_steps.{name}: {what}", kind_of(own), "an integer from 0 on")
    if isinstance(update.loss, bool) or not isinstance(update.loss, Real):
        fix = "Use float(...) on a tensor."
        raise InputError(f"client_steps.{name}: loss", kind_of(update.loss), "a number", fix)
    weight = update.weight
    if weight is not None and (
        isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= float_info.max
    ):
        raise InputError(
            f"client_steps.{name}: weight", weight, "a finite number from 0 on", "Use float(...) on a tensor."
        )
    if update.sent is not None and not ordered:
        expected = "None where clients send every block, as in warm-up rounds and without a client selection"
        fix = "Set client_selection.selector, or leave sent as it is while client.order is None."
        raise InputError(f"client_steps.{name}: sent", update.sent, expected, fix)
    if update.sent is not None and update.sent is not given.sent:
        _check_blocks(name, "sent", update.sent, blocks)


def _check_vector(name: str, what: str, found: Any, like: Tensor) -> None:
    right = isinstance(found, Tensor) and found.shape == like.shape and found.dtype == like.dtype
    if not right or found.layout != like.layout:
        expected = f"a dense tensor of {like.dtype} and shape {tuple(like.shape)}, as it got"
        raise InputError(f"client_steps.{name}: {what}", kind_of(found), expected)


def _check_blocks(name: str, what: str, found: Any, blocks: int) -> None:
    right = isinstance(found, tuple) and not any(
        isinstance(block, bool) or not isinstance(block, Integral) or not 0 <= int(block) < blocks
        for block in found
    )
    if not right or not all(one < other for one, other in pairwise(found)):
        expected = f"a tuple of ascending indices of the {blocks} blocks, or None for all"
        given = found if isinstance(found, tuple | int) else kind_of(found)
        raise InputError(f"client_steps.{name}: {what}", given, expected)


def wrong_kind(name: str, hook: str, value: Any, expected: str) -> InputError:
    """Returns the error for a step whose hook returns an object of the wrong kind."""
    return InputError(f"client_steps.{name}: {hook}()", value, f"{expected} that it returns")
