"""What a run can be resumed from: the server's state, written so that a kill at any moment loses nothing.

A checkpoint is a directory ``round-000042`` with ``model.safetensors`` (the trained tensors and buffers by
name, as other tools read them), ``state.json`` (see `CheckpointFacts`) and, where a part of the run remembers
something, ``memory.safetensors`` (see `memory_file`). It is written under a temporary name and renamed when
it is complete.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fedtlu_fast.environment import DATA, differences
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.part_memory import Memory
from fedtlu_fast.runs.best import read_best, remove_unnamed, write_best
from fedtlu_fast.runs.checkpoints import complete_checkpoints, round_of
from fedtlu_fast.runs.control import Control
from fedtlu_fast.runs.facts import (
    FORMAT,
    MEMORY,
    STATE,
    WEIGHTS,
    CheckpointFacts,
    EarlierVersionError,
    check_files,
    facts_text,
    read_facts,
)
from fedtlu_fast.runs.files import (
    file_sha256,
    make_folder,
    make_root,
    remove_tree,
    storage_error,
    sync_file,
    sync_folder,
)
from fedtlu_fast.runs.logs import changed_log
from fedtlu_fast.runs.results import BestModel
from fedtlu_fast.runs.sealed import DamagedError
from fedtlu_fast.runs.tensors import joined, load_tensors, model_tensors
from fedtlu_fast.simulation.memory_file import packed, unpacked
from fedtlu_fast.wording import RESUMED

logger = logging.getLogger("fedtlu_fast")


@dataclass(frozen=True)
class ServerState:
    """The whole state of a federation between two rounds; every draw follows from seed and round.

    Attributes:
        round: rounds done.
        params: [P] float32, the global parameters.
        buffers: [Q] float32, the global floating-point buffers.
        memory: what the parts of the run remember, by the part's name.
        control: what callbacks have changed; its `best` is None here, and follows from the model.
        best: the best model, where one is kept.
    """

    round: int
    params: Tensor
    buffers: Tensor
    memory: Memory = field(default_factory=dict)
    control: Control = field(default_factory=Control)
    best: BestModel | None = None

    def to(self, device: str | torch.device) -> ServerState:
        """The same state with its tensors on this device."""
        memory = {
            name: part.with_server({key: tensor.to(device) for key, tensor in part.server.items()})
            for name, part in self.memory.items()
        }
        return replace(self, params=self.params.to(device), buffers=self.buffers.to(device), memory=memory)

    def sha256(self) -> str:
        """SHA-256 of the parameter vector's bytes (little-endian float32)."""
        return _sha256(self.params)


def save_checkpoint(
    folder: Path,
    layout: ParameterLayout,
    state: ServerState,
    identity: Mapping[str, str],
    retain: int,
    *,
    logs: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Writes a checkpoint and removes all but the latest `retain`.

    Args:
        folder: ``checkpoints`` of a run.
        layout: of the model.
        state: what to write.
        identity: what a resumed run must share (digests of settings and data).
        retain: how many checkpoints stay.
        logs: digests of the logs' lines up to this round, by name.
        environment: where this runs; a run that is resumed elsewhere says what differs.

    Raises:
        StorageError: it cannot be written; earlier checkpoints are intact.
    """
    target = folder / f"round-{state.round:06d}"
    scratch = folder / f".writing-{state.round:06d}"
    content = {
        WEIGHTS: model_tensors(layout, state.params, state.buffers),
        MEMORY: packed(state.memory),
    }
    try:
        make_root(folder.parent)
        make_folder(folder)
        for left in folder.glob(".writing-*"):
            remove_tree(left)
        scratch.mkdir()
        # safetensors makes files that nobody else may read, whatever the user's umask says.
        mode = scratch.stat().st_mode & 0o666
        digests: dict[str, str] = {}
        for name, held in content.items():
            if held or name == WEIGHTS:
                save_file(held, scratch / name)
                (scratch / name).chmod(mode)
                digests[name] = file_sha256(scratch / name)
        kept = None if state.best is None else write_best(folder, state.best, layout)
        facts = CheckpointFacts(
            format=FORMAT,
            round=state.round,
            params_sha256=state.sha256(),
            model_sha256=digests[WEIGHTS],
            memory_sha256=digests.get(MEMORY),
            logs=dict(logs or {}),
            identity=dict(identity),
            environment=dict(environment or {}),
            control=state.control.model_copy(update={"best": kept}),
        )
        (scratch / STATE).write_text(facts_text(facts))
        for path in sorted(scratch.iterdir()):
            sync_file(path)
        sync_folder(scratch)
        if os.path.lexists(target):
            remove_tree(target)
        scratch.rename(target)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise storage_error(target, error) from error
    whole = complete_checkpoints(folder)
    # A run that had to pass over damaged checkpoints finds them ahead of itself; they count for nothing.
    place = whole.index(target) + 1
    for stale in (*whole[: max(0, place - retain)], *whole[place:]):
        shutil.rmtree(stale, ignore_errors=True)
    remove_unnamed(folder)


def load_checkpoint(
    folder: Path,
    layout: ParameterLayout,
    identity: Mapping[str, str],
    *,
    environment: Mapping[str, str] | None = None,
) -> ServerState | None:
    """The latest checkpoint that is whole, or None when there is none yet.

    A damaged one (it, or the lines of the logs up to its round, are not what was written) is passed over,
    with a warning, for the one before it; a run can be resumed from any of them to the same bits.

    Args:
        folder: ``checkpoints`` of a run; its logs lie beside it.
        layout: of the model.
        identity: what has to agree.
        environment: where this runs; a warning says what differs from where the checkpoint was written.

    Raises:
        InputError: there are checkpoints, but none is whole; or they belong to other settings or data, or to
            an earlier version.
    """
    damaged: list[str] = []
    foreign: InputError | None = None
    for path in reversed(complete_checkpoints(folder)):
        try:
            facts = read_facts(path)
            changed = [key for key, value in identity.items() if facts.identity.get(key) != value]
            # Another layout cannot even be read: that it is other settings has to be said first.
            if changed:
                foreign = foreign or _changed_since(path, changed[0], facts.environment, environment or {})
                continue
            state = _read(path, facts, layout)
        except EarlierVersionError:
            foreign = foreign or _of_earlier_version(path)
            continue
        except DamagedError as error:
            damaged.append(f"{path.name} ({error})")
            continue
        if damaged:
            logger.warning("damaged: %s; going on from %s", ", ".join(damaged), path.name)
        _warn_of_differences(path, facts.environment, environment or {})
        return state
    if foreign is not None:
        raise foreign
    if damaged:
        raise InputError(
            RESUMED,
            str(folder),
            f"a whole checkpoint; damaged: {', '.join(damaged)}",
            "Start the run anew in another directory, or in this one once it is removed: the same settings "
            "give the same bits.",
        )
    return None


def _read(path: Path, facts: CheckpointFacts, layout: ParameterLayout) -> ServerState:
    """The state in a checkpoint.

    Raises:
        DamagedError: it is not what was written, or not of this model.
    """
    if facts.round != round_of(path):
        raise DamagedError(f"its state is that of round {facts.round}")
    check_files(path, facts)
    if changed := changed_log(path.parent.parent, facts.logs, facts.round):
        raise DamagedError(changed)
    kept = facts.control.best
    best = None if kept is None else read_best(path.parent, kept, layout)
    try:
        held: dict[str, dict[str, Tensor]] = {name: load_tensors(path / name) for name in facts.files}
        return ServerState(
            facts.round,
            joined(layout.layers, held[WEIGHTS]),
            joined(layout.buffers, held[WEIGHTS]),
            unpacked(held.get(MEMORY, {})),
            facts.control.model_copy(update={"best": None}),
            best,
        )
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise DamagedError(f"not of this model: {error}") from None


def _warn_of_differences(path: Path, then: Mapping[str, str], now: Mapping[str, str]) -> None:
    if now and (different := differences(then, now, "then")):
        logger.warning("%s was written elsewhere; last bits may differ: %s", path, different)


def _changed_since(path: Path, key: str, then: Mapping[str, str], now: Mapping[str, str]) -> InputError:
    made, here = then.get(DATA), now.get(DATA)
    if key == "data_sha256" and made and here and made != here:
        return InputError(
            RESUMED,
            str(path),
            f"a checkpoint made with this run's data; it was made with {made}, and here are {here}",
            f"Resume it with {made.partition(chr(39))[0]}, or give the data as files (data.source).",
        )
    what = {
        "config_sha256": "settings (config.yaml)",
        "data_sha256": "data",
        "trace_sha256": "trace (participation.trace)",
        "start_sha256": "model (its weights before round 1)",
        "frozen_sha256": "frozen weights (model.pretrained)",
        "buffers_sha256": "model (its buffers that are not averaged)",
    }.get(key, key)
    return InputError(
        RESUMED,
        str(path),
        f"a checkpoint made with this run's {what}; they have changed since",
        "Put them back as they were, or start a new run in a new directory.",
    )


def _of_earlier_version(path: Path) -> InputError:
    return InputError(
        RESUMED,
        str(path),
        "a checkpoint of this version of fedtlu-fast; an earlier version wrote it, in another format",
        "Finish the run with that version, or start it anew in another directory.",
    )


def _sha256(vector: Tensor) -> str:
    return hashlib.sha256(vector.detach().cpu().contiguous().view(torch.uint8).numpy().data).hexdigest()
