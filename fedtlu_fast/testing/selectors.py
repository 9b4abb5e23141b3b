"""The checks of a selector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.registry import find
from fedtlu_fast.scoring.block_metrics import Change
from fedtlu_fast.selection import (
    ClientRoom,
    Evidence,
    Mask,
    Room,
    Selector,
    ServerRoom,
    as_selector,
    chosen_by,
    remembered_by,
)
from fedtlu_fast.selection.calls import check_forgets
from fedtlu_fast.testing.common import CLIENTS, LAYOUT, ConformanceError, bits, found_again, must
from fedtlu_fast.testing.selector_scenes import (
    client_evidence,
    client_scenes,
    server_evidence,
    server_scenes,
    spoilt,
)

ROUNDS = 6
"""How many rounds in a row a selector that remembers has to choose in."""


def check_selector(
    selector: str | Selector | Callable[[Change], Any], side: Literal["server", "clients"] = "server"
) -> None:
    """Checks a selector: its choices, that it changes nothing, and that other processes can have it.

    The choice is a mask of the right shape, within the room. It is the same bits every time, whatever was
    asked before. Nothing that the selector sees is changed. Metrics that are NaN, and rooms without any
    place, raise nothing. A client's choice does not depend on the other clients, unless `needs_others` or
    `same_for_all` says so. The selector survives pickling, and is found again by its name. If it remembers
    rounds, its choices and its memory are the same bits in several rounds in a row, and what it remembers can
    be held by checkpoints.

    Args:
        selector: a selector, a score ``(change) -> [B]``, or the name of one.
        side: where it chooses.

    Raises:
        ConformanceError: a promise is broken.
        InputError: there is no such selector, or it needs what that side does not have: clients have no
            memory (`Selector.remembers`).
    """
    kind = "selector" if side == "server" else "client_selector"
    given: Any = find(kind, selector, "selector") if isinstance(selector, str) else selector
    made = as_selector(given)
    if side == "clients":
        check_forgets(made, type(made).__name__, "selector")
    scenes = server_scenes if side == "server" else client_scenes
    choices = [_choice(made, *scene) for scene in scenes(made)]
    for (what, _, _), first, again in zip(
        scenes(made), choices, (_choice(made, *scene) for scene in scenes(made)), strict=True
    ):
        must(np.array_equal(first, again), f"{what}: the same evidence gives another choice the second time")
    if side == "clients":
        _check_rows(made)
    copy = found_again(kind, made)
    for (what, evidence, room), first in zip(scenes(made), choices, strict=True):
        must(
            np.array_equal(_choice(copy, what, evidence, room), first),
            f"{what}: the selector that is found again by its name and parameters chooses otherwise",
        )
    if made.has_memory:
        _check_memory(made, copy)


def _choice(selector: Selector, what: str, evidence: Evidence, room: Room) -> Mask:
    """The selector's choice, with nothing of what it saw changed."""
    before = _seen(evidence, room)
    try:
        mask = chosen_by(selector, evidence, room).copy()
    except InputError as error:
        raise ConformanceError(f"{what}: {error}") from error
    except Exception as error:
        raise ConformanceError(f"{what}: choose raised {cause(error)}") from error
    must(_seen(evidence, room) == before, f"{what}: choose changed what it was given")
    if selector.budgeted and "NaN" not in what:
        must(room.kept(mask), f"{what}: the choice takes more than there is room for")
    return mask


def _seen(evidence: Evidence, other: Any) -> bytes:
    """Bytes that change when anything changes that the selector sees."""
    own = [evidence.metrics, evidence.change, evidence.parameters, evidence.last_choice, evidence.memory]
    return bits([*own, other])


Memory = dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]


def _check_memory(made: Selector, copy: Selector) -> None:
    """Several rounds in a row give the same choices and memories every time, also with a copy."""
    first = _rounds(made)
    for again, whose in ((_rounds(made), "the second time"), (_rounds(copy), "found again by its name")):
        for index, (own, other) in enumerate(zip(first, again, strict=True), start=1):
            what = f"round {index} in a row, {whose}"
            must(own[1] == other[1], f"{what}: the selector remembers something else")
            must(own[0] == other[0], f"{what}: the selector chooses otherwise")


def _rounds(selector: Selector) -> list[tuple[bytes, Memory]]:
    """The choice and the memory of each of several rounds, of which one has NaN in a metric."""
    memory: Mapping[str, Tensor] = {}
    room, found = ServerRoom(LAYOUT, (2, 1)), []
    for index in range(1, ROUNDS + 1):
        what = f"round {index} in a row"
        evidence = replace(server_evidence(selector, index), memory=memory)
        if index == 3:
            evidence, what = spoilt(evidence), f"{what}, with NaN"
        applied = _choice(selector, what, evidence, room)[0]
        chosen = applied.tobytes()
        applied[list(LAYOUT.unique)] = True
        if index == 4 and applied.any():
            applied[np.flatnonzero(applied)[-1]] = False  # its change was not finite
        memory = _remembered(selector, what, evidence, applied)
        found.append((chosen, {name: _exactly(tensor) for name, tensor in memory.items()}))
    return found


def _remembered(selector: Selector, what: str, evidence: Evidence, applied: Mask) -> dict[str, Tensor]:
    before = _seen(evidence, applied)
    try:
        memory = remembered_by(selector, evidence, applied)
    except InputError as error:
        raise ConformanceError(f"{what}: {error}") from error
    except Exception as error:
        raise ConformanceError(f"{what}: remembers raised {cause(error)}") from error
    must(_seen(evidence, applied) == before, f"{what}: remembers changed what it was given")
    return memory


def _exactly(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    """What two tensors have in common if their bits are the same."""
    return tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def _check_rows(selector: Selector) -> None:
    """A client's choice is its own, or the same for all, as the selector says."""
    if selector.moment == "by_change":
        return
    blocks = len(LAYOUT.blocks)
    whole = np.ones(blocks, np.bool_)

    def room_of(rows: int) -> ClientRoom:
        return ClientRoom(whole, np.full(rows, 3.0), np.ones(blocks), np.zeros(blocks))

    clients = range(CLIENTS)
    together = _choice(selector, "clients together", client_evidence(selector, 4, clients), room_of(CLIENTS))
    if selector.same_for_all:
        must(bool((together == together[0]).all()), "same_for_all is set, and clients get different choices")
    elif selector.needs_others is None:
        for client in clients:
            alone = _choice(selector, "a client alone", client_evidence(selector, 4, [client]), room_of(1))
            same = np.array_equal(alone[0], together[client])
            must(same, "a client alone chooses otherwise than among others, and needs_others is None")
