"""What a run can be resumed from: the server's state, written so that a kill at any moment loses nothing.

A checkpoint is a directory ``round-000042`` with ``model.safetensors`` (the trained tensors and buffers by
name, as other tools read them) and ``state.json`` (the round, and SHA-256 digests). It is written under a
temporary name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedtlu_fast.errors import InputError, StorageError
from fedtlu_fast.layout import Layer, ParameterLayout

FORMAT = 1
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class ServerState:
    """The whole state of a federation between two rounds; every draw follows from seed and round.

    Attributes:
        round: rounds done.
        params: [P] float32, the global parameters.
        buffers: [Q] float32, the global floating-point buffers.
    """

    round: int
    params: Tensor
    buffers: Tensor

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
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        tensors = {**layout.views(state.params), **layout.buffer_views(state.buffers)}
        # Copied one by one: safetensors refuses tensors that share memory.
        save_file({name: tensor.cpu().clone() for name, tensor in tensors.items()}, scratch / WEIGHTS)
        (scratch / "state.json").write_text(json.dumps(facts, indent=1) + "\n")
        for path in (scratch / WEIGHTS, scratch / "state.json", scratch):
            _sync(path)
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise storage_error(target, error) from error
    for old in _complete(folder)[:-retain]:
        shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, layout: ParameterLayout, identity: dict[str, str]) -> ServerState | None:
    """The latest checkpoint that is whole, or None when there is none yet.

    A damaged one (its bytes do not match its digests) is passed over for the one before it; a run can be
    resumed from any of them to the same bits.

    Raises:
        InputError: there are checkpoints, but none is whole; or they belong to other settings or data.
    """
    damaged = []
    for path in reversed(_complete(folder)):
        try:
            facts = json.loads((path / "state.json").read_text())
            tensors = load_file(path / WEIGHTS)
            params, buffers = _joined(layout.layers, tensors), _joined(layout.buffers, tensors)
            state = ServerState(int(facts["round"]), params, buffers)
            whole = (state.sha256(), _sha256(state.buffers)) == (
                facts["params_sha256"],
                facts["buffers_sha256"],
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            whole = False
        if not whole:
            damaged.append(path.name)
            continue
        for key, value in identity.items():
            if facts.get(key) != value:
                raise InputError(
                    f"{path / 'state.json'}: {key}",
                    facts.get(key),
                    f"{value}, as this run's {key.removesuffix('_sha256')} have it",
                    "The settings or the data have changed since; start a new run in a new directory.",
                )
        return state
    if damaged:
        raise InputError("--resume", str(folder), f"a whole checkpoint; damaged: {', '.join(damaged)}")
    return None


def storage_error(path: Path, error: Exception) -> StorageError:
    """One message for a write that failed: what, why, and what to do."""
    reason = getattr(error, "strerror", None) or str(error)
    return StorageError(
        f"{path} could not be written: {reason}. Everything written before it is intact; make room, then "
        f"go on with `fedtlu run --resume DIR`"
    )


def _complete(folder: Path) -> list[Path]:
    return sorted(folder.glob("round-[0-9]*")) if folder.is_dir() else []


def _joined(slots: Sequence[Layer], tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([torch.empty(0), *(tensors[slot.name].reshape(-1) for slot in slots)])


def _sha256(vector: Tensor) -> str:
    return hashlib.sha256(vector.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
