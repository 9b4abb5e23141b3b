"""What a run can be resumed from: the server's state, written so that a kill at any moment loses nothing.

A checkpoint is a directory ``round-000042`` with ``model.safetensors`` (the trained tensors and buffers by
name, as other tools read them), ``state.json`` (the round, and SHA-256 digests), ``losses.safetensors`` where
the next cohorts depend on the clients' losses, ``optimizer.safetensors`` where the server has one, and
``clients.safetensors`` where clients keep blocks for themselves, or where the next orders depend on earlier
probes or on the last change. It is written under a temporary name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedtlu_fast.aggregation import OptimizerState
from fedtlu_fast.errors import InputError, StorageError
from fedtlu_fast.layout import Layer, ParameterLayout

FORMAT = 1
WEIGHTS = "model.safetensors"
LOSSES = "losses.safetensors"
OPTIMIZER = "optimizer.safetensors"
CLIENTS = "clients.safetensors"


@dataclass(frozen=True)
class Probe:
    """What a client measured.

    Attributes:
        round: when.
        gains: [B] float64.
    """

    round: int
    gains: NDArray[np.float64]


@dataclass(frozen=True)
class ServerState:
    """The whole state of a federation between two rounds; every draw follows from seed and round.

    Attributes:
        round: rounds done.
        params: [P] float32, the global parameters.
        buffers: [Q] float32, the global floating-point buffers.
        losses: of clients that have trained, their last training losses, where cohorts depend on them.
        optimizer: vectors [P] float32 of the server's optimizer by name; empty without one.
        probes: of clients, where they are used again in later rounds.
        last_change: [P], the aggregated change of the last round, where it may be used again.
        personal: [p] float32 of each client that has taken part, where clients keep blocks for themselves.
    """

    round: int
    params: Tensor
    buffers: Tensor
    losses: Mapping[int, float] = field(default_factory=dict)
    optimizer: OptimizerState = field(default_factory=dict)
    probes: dict[int, Probe] = field(default_factory=dict)
    last_change: Tensor | None = None
    personal: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)

    def sha256(self) -> str:
        """SHA-256 of the parameter vector's bytes (little-endian float32)."""
        return _sha256(self.params)


def save_checkpoint(
    folder: Path, layout: ParameterLayout, state: ServerState, identity: dict[str, str], retain: int
) -> None:
    """Writes a checkpoint and removes all but the latest `retain`.

    Args:
        folder: ``checkpoints`` of a run.
        layout: of the model.
        state: what to write.
        identity: what a resumed run must share (digests of settings and data).
        retain: how many checkpoints stay.

    Raises:
        StorageError: it cannot be written; earlier checkpoints are intact.
    """
    target = folder / f"round-{state.round:06d}"
    scratch = folder / f".writing-{state.round:06d}"
    facts = {
        "format": FORMAT,
        "round": state.round,
        "params_sha256": state.sha256(),
        "buffers_sha256": _sha256(state.buffers),
        **identity,
    }
    known = _columns(state.losses)
    if state.losses:
        facts["losses_sha256"] = _losses_sha256(known)
    if state.optimizer:
        facts["optimizer_sha256"] = _digests(state.optimizer)
    remembered = _remembered(state)
    if remembered:
        facts["clients_sha256"] = _digests(remembered)
    try:
        for left in folder.glob(".writing-*"):
            shutil.rmtree(left, ignore_errors=True)
        scratch.mkdir(parents=True)
        tensors = {**layout.views(state.params), **layout.buffer_views(state.buffers)}
        # Copied one by one: safetensors refuses tensors that share memory.
        save_file({name: tensor.cpu().clone() for name, tensor in tensors.items()}, scratch / WEIGHTS)
        if state.losses:
            save_file(known, scratch / LOSSES)
        if state.optimizer:
            save_file({name: tensor.cpu() for name, tensor in state.optimizer.items()}, scratch / OPTIMIZER)
        if remembered:
            save_file(remembered, scratch / CLIENTS)
        (scratch / "state.json").write_text(json.dumps(facts, indent=1) + "\n")
        for path in (*sorted(scratch.iterdir()), scratch):
            _sync(path)
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise storage_error(target, error) from error
    whole = _complete(folder)
    # A run that had to pass over damaged checkpoints finds them ahead of itself; they count for nothing.
    place = whole.index(target) + 1
    for stale in (*whole[: max(0, place - retain)], *whole[place:]):
        shutil.rmtree(stale, ignore_errors=True)


def load_checkpoint(folder: Path, layout: ParameterLayout, identity: dict[str, str]) -> ServerState | None:
    """The latest checkpoint that is whole, or None when there is none yet.

    A damaged one (its bytes do not match its digests) is passed over for the one before it; a run can be
    resumed from any of them to the same bits.

    Raises:
        InputError: there are checkpoints, but none is whole; or they belong to other settings or data.
    """
    damaged: list[str] = []
    foreign: InputError | None = None
    for path in reversed(_complete(folder)):
        try:
            facts = json.loads((path / "state.json").read_text(encoding="utf-8"))
            changed = [key for key, value in identity.items() if facts[key] != value]
            # Another layout cannot even be read: that it is other settings has to be said first.
            if changed and foreign is None:
                foreign = _changed_since(path, changed[0])
            state = None if changed else _read(path, facts, layout)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
            state = None
        if state is not None:
            return state
        damaged.append(path.name)
    if foreign is not None:
        raise foreign
    if damaged:
        raise InputError(
            "--resume",
            str(folder),
            f"a whole checkpoint; damaged: {', '.join(damaged)}",
            "Start the run anew in another directory: the same settings give the same bits.",
        )
    return None


def storage_error(path: Path, error: Exception) -> StorageError:
    """One message for a write that failed: what, why, and what to do."""
    reason = getattr(error, "strerror", None) or str(error)
    return StorageError(
        f"{path} could not be written: {reason}. Everything written before it is intact; make room, then "
        f"go on by --resume with the run's directory"
    )


def _read(path: Path, facts: Mapping[str, Any], layout: ParameterLayout) -> ServerState | None:
    """The state in a checkpoint; None when its bytes or its round are not what `facts` says."""
    tensors = load_file(path / WEIGHTS)
    known = load_file(path / LOSSES) if "losses_sha256" in facts else _columns({})
    losses = dict(zip(known["clients"].tolist(), known["losses"].tolist(), strict=True))
    optimizer = load_file(path / OPTIMIZER) if "optimizer_sha256" in facts else {}
    vectors = _joined(layout.layers, tensors), _joined(layout.buffers, tensors)
    clients = load_file(path / CLIENTS) if "clients_sha256" in facts else {}
    last, own = clients.get("last_change"), _personal(clients)
    state = ServerState(_round_of(path), *vectors, losses, optimizer, _probes(clients), last, own)
    digests = _losses_sha256(known) if losses else None, _digests(optimizer), _digests(clients)
    found = (state.round, state.sha256(), _sha256(state.buffers), *digests)
    said = (facts["round"], facts["params_sha256"], facts["buffers_sha256"], facts.get("losses_sha256"))
    known_digests = facts.get("optimizer_sha256", {}), facts.get("clients_sha256", {})
    return state if found == (*said, *known_digests) else None


def _remembered(state: ServerState) -> dict[str, Tensor]:
    """What `clients.safetensors` holds."""
    found: dict[str, Tensor] = {}
    if state.probes:
        clients = sorted(state.probes)
        rounds = [state.probes[client].round for client in clients]
        found["clients"], found["rounds"] = torch.tensor(clients), torch.tensor(rounds)
        found["gains"] = torch.from_numpy(np.stack([state.probes[client].gains for client in clients]))
    if state.last_change is not None:
        found["last_change"] = state.last_change.cpu()
    if state.personal:
        clients = sorted(state.personal)
        found["keepers"] = torch.tensor(clients)
        found["personal"] = torch.from_numpy(np.stack([state.personal[client] for client in clients]))
    return found


def _probes(found: Mapping[str, Tensor]) -> dict[int, Probe]:
    if "clients" not in found:
        return {}
    rows = zip(found["clients"].tolist(), found["rounds"].tolist(), found["gains"].numpy(), strict=True)
    return {client: Probe(index, gains) for client, index, gains in rows}


def _personal(found: Mapping[str, Tensor]) -> dict[int, NDArray[np.float32]]:
    if "keepers" not in found:
        return {}
    # Copied: a view would keep all clients' values in memory as long as one of them is as it was read.
    rows = zip(found["keepers"].tolist(), found["personal"].numpy(), strict=True)
    return {client: own.copy() for client, own in rows}


def _columns(losses: Mapping[int, float]) -> dict[str, Tensor]:
    """Clients, ascending, and their losses."""
    clients = sorted(losses)
    values = [losses[client] for client in clients]
    return {
        "clients": torch.tensor(clients, dtype=torch.int64),
        "losses": torch.tensor(values, dtype=torch.float64),
    }


def _losses_sha256(known: Mapping[str, Tensor]) -> str:
    return _sha256(torch.stack([known["clients"], known["losses"].view(torch.int64)]))


def _changed_since(path: Path, key: str) -> InputError:
    what = {
        "config_sha256": "settings (config.yaml)",
        "data_sha256": "data",
        "trace_sha256": "trace (participation.trace)",
        "frozen_sha256": "frozen weights (model.pretrained)",
    }.get(key, key)
    return InputError(
        "--resume",
        str(path),
        f"a checkpoint made with this run's {what}; they have changed since",
        "Put them back as they were, or start a new run in a new directory.",
    )


def _complete(folder: Path) -> list[Path]:
    """Checkpoints that were not cut short while they were written, the earliest first."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if re.fullmatch(r"round-\d{6,}", path.name)), key=_round_of)


def _round_of(path: Path) -> int:
    return int(path.name.removeprefix("round-"))


def _joined(slots: Sequence[Layer], tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([torch.empty(0), *(tensors[slot.name].reshape(-1) for slot in slots)])


def _digests(vectors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: _sha256(vector) for name, vector in vectors.items()}


def _sha256(vector: Tensor) -> str:
    return hashlib.sha256(vector.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
