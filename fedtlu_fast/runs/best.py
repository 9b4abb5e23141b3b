"""The best model of a run, in a folder beside its checkpoints: ``best-000042`` with ``model.safetensors``.

A checkpoint names the folder and the digest of its file, so that the best model goes back in time with the
checkpoint that a run resumes from.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.runs.checkpoints import complete_checkpoints
from fedtlu_fast.runs.control import KeptBest
from fedtlu_fast.runs.facts import WEIGHTS, EarlierVersionError, read_facts
from fedtlu_fast.runs.files import file_sha256, remove_tree, sync_file, sync_folder
from fedtlu_fast.runs.results import BestModel
from fedtlu_fast.runs.sealed import DamagedError
from fedtlu_fast.runs.tensors import joined, load_tensors, model_tensors


def write_best(folder: Path, best: BestModel, layout: ParameterLayout) -> KeptBest:
    """Makes sure that a folder holds a model; it is written under a temporary name and renamed.

    Args:
        folder: ``checkpoints`` of a run, which exists.
        best: the model.
        layout: of the model.

    Returns:
        What a checkpoint has to say of it.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    target, scratch = _place(folder, best.round), folder / f".writing-best-{best.round:06d}"
    tensors = model_tensors(layout, best.params, best.buffers)
    # Left alone where it is there: until this checkpoint is whole, the one before it has to find its own.
    if not _same(target / WEIGHTS, tensors):
        _write(target, scratch, tensors)
    digest = file_sha256(target / WEIGHTS)
    return KeptBest(round=best.round, metric=best.metric, value=best.value, model_sha256=digest)


def read_best(folder: Path, kept: KeptBest, layout: ParameterLayout) -> BestModel:
    """The model that a checkpoint names.

    Args:
        folder: ``checkpoints`` of a run.
        kept: what the checkpoint says.
        layout: of the model.

    Raises:
        DamagedError: it is not what was written.
    """
    path = _place(folder, kept.round) / WEIGHTS
    name = f"{path.parent.name}/{WEIGHTS}"
    try:
        if file_sha256(path) != kept.model_sha256:
            raise DamagedError(f"{name} was changed")
        tensors = load_tensors(path)
        params, buffers = joined(layout.layers, tensors), joined(layout.buffers, tensors)
    except (OSError, KeyError, SafetensorError) as error:
        raise DamagedError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
    return BestModel(kept.round, kept.metric, kept.value, params, buffers)


def remove_unnamed(folder: Path) -> None:
    """Removes the best models that no checkpoint names any more.

    Args:
        folder: ``checkpoints`` of a run.
    """
    held = [path for path in folder.glob("best-*") if re.fullmatch(r"best-\d{6,}", path.name)]
    if not held:
        return
    named = set()
    for path in complete_checkpoints(folder):
        with suppress(DamagedError, EarlierVersionError):
            best = read_facts(path).control.best
            if best is not None:
                named.add(_place(folder, best.round))
    for path in held:
        if path not in named:
            shutil.rmtree(path, ignore_errors=True)


def _same(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file has these tensors already."""
    try:
        found = load_tensors(path)
    except (OSError, SafetensorError):
        return False
    return found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in tensors)


def _place(folder: Path, index: int) -> Path:
    return folder / f"best-{index:06d}"


def _write(target: Path, scratch: Path, tensors: dict[str, Tensor]) -> None:
    if os.path.lexists(scratch):
        remove_tree(scratch)
    scratch.mkdir()
    # safetensors makes files that nobody else may read, whatever the user's umask says.
    mode = scratch.stat().st_mode & 0o666
    save_file(tensors, scratch / WEIGHTS)
    (scratch / WEIGHTS).chmod(mode)
    sync_file(scratch / WEIGHTS)
    sync_folder(scratch)
    if os.path.lexists(target):
        remove_tree(target)
    scratch.rename(target)
    sync_folder(target.parent)
