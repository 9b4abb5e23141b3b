"""Calls a selector's methods and checks what they return, because the selector may be the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.remembered import server_tensors
from fedtlu_fast.scoring.block_metrics import given_to_metric
from fedtlu_fast.selection.evidence import Evidence, Mask
from fedtlu_fast.selection.room import Room
from fedtlu_fast.selection.selector import FunctionSelector, Selector
from fedtlu_fast.unchanged import unchanged


def chosen_by(selector: Selector, evidence: Evidence, room: Room, field: str = "selector") -> Mask:
    """Returns the selector's choice, [R, B] bool, after checking it.

    Args:
        selector: the selector.
        evidence: the numbers that it may look at.
        room: the blocks that it may choose.
        field: the setting or argument that gives the selector, for errors.

    Raises:
        InputError: The selector raises, or its choice is not a mask of this shape, or contains blocks that
            may not be chosen.
    """
    name, shape = type(selector).__name__, (evidence.rows, len(evidence.layout.blocks))
    with _errors(selector, "choose", evidence, field):
        mask = selector.choose(evidence, room)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != shape:
        given = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise InputError(field, given, f"{name} to return a mask: a NumPy array of bool, shape {shape}")
    if (wrong := mask & ~room.whole).any():
        block = evidence.layout.blocks[int(np.flatnonzero(wrong.any(axis=0))[0])].name
        raise InputError(field, block, f"{name} to choose only open blocks (Room.whole)")
    return mask


def remembered_by(
    selector: Selector, evidence: Evidence, applied: Mask, field: str = "selector"
) -> dict[str, Tensor]:
    """Returns what a selector of the server remembers of a round, as checkpoints hold it, on the CPU.

    Args:
        selector: the selector.
        evidence: what it saw when it chose.
        applied: [B] bool, the blocks that were applied.
        field: the setting or argument that gives the selector, for errors.

    Raises:
        InputError: The selector raises, or it returns no mapping from names to tensors that checkpoints can
            hold.
    """
    if not selector.has_memory:
        return {}
    change = None if evidence.change is None else replace(evidence.change, parameters=None)
    seen = replace(evidence, change=change, parameters=None)
    with _errors(selector, "remembers", seen, field):
        found = selector.remembers(seen, applied.copy())
    tensors = server_tensors(f"{field}: {type(selector).__name__}.remembers()", found)
    # Copied: the selector may go on writing where it keeps its own numbers.
    return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}


def check_forgets(selector: Selector, name: str, field: str) -> None:
    """Refuses a selector of clients that remembers.

    Args:
        selector: the selector.
        name: what the caller calls it.
        field: the setting or argument that gives it.

    Raises:
        InputError: It defines `remembers`.
    """
    if selector.has_memory:
        expected = "a client selector without remembers(): only the server's selector has a memory"
        raise InputError(field, name, expected)


@contextmanager
def _errors(selector: Selector, method: str, evidence: Evidence, field: str) -> Iterator[None]:
    """Names the setting in what the selector raises, and checks that it changes nothing that it sees."""
    who: tuple[object, str] = (selector, method)
    if isinstance(selector, FunctionSelector):
        who = getattr(selector.function, "__qualname__", type(selector.function).__name__), ""
    try:
        with named_errors(field, selector), unchanged(field, *who, _given(evidence)):
            yield
    except InputError as error:
        if error.field != "selector":
            raise
        raise error.of(field) from error.__cause__


def _given(evidence: Evidence) -> dict[str, Tensor | None]:
    """Returns the tensors that a selector receives and that others read too."""
    found: dict[str, Tensor | None] = {"parameters": evidence.parameters}
    found["layout.offsets"] = evidence.layout.offsets
    found |= {f"memory[{name!r}]": tensor for name, tensor in evidence.memory.items()}
    return found if evidence.change is None else {**found, **given_to_metric(evidence.change)}
