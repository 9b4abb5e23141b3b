"""A start that stands for pre-training: central epochs on samples that no client holds.

The papers fine-tune models that know the language; where no such model can be had, every arm and every seed
of an experiment begins with the same one, trained here. What was trained is kept by its content, so that it
is trained once.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedtlu_fast.clients.local import Local
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.data.population import Samples
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.tasks.task import Task

logger = logging.getLogger(__name__)

VERSION = 2
"""Raised when the same settings come to other bits."""
CONTENT = "content_sha256"
"""Under which a kept start says what it holds: a changed bit would change every run that begins there."""
NOT_KEPT = (
    "pre-training: the start is not kept, and the next run trains it again (%s); FEDTLU_CACHE names another "
    "directory"
)


def cache_directory() -> Path | None:
    """Where starts are kept: ``FEDTLU_CACHE``, or fedtlu-fast in the user's cache directory.

    Returns:
        None for a user without a home, in whose environment no directory is named.
    """
    given = os.environ.get("FEDTLU_CACHE")
    try:
        if given:
            return Path(given).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedtlu-fast"
    except RuntimeError:  # neither HOME nor the system's list of users names one
        return None


def pretrain_(
    local: Local, seed: int, task: Task, layout: ParameterLayout, public: Samples, known: str
) -> None:
    """Gives the task's model the start: trained here, or read where it was trained before.

    Args:
        local: how it is trained.
        seed: of the draws.
        task: with a model at its initial weights; nobody has bound it yet.
        layout: of the model.
        public: the samples set aside.
        known: all settings on which the start depends, as text.

    Raises:
        InputError: training diverged.
    """
    params, buffers = layout.flatten(task.model), layout.flatten_buffers(task.model)
    folder = cache_directory()
    path = folder and folder / f"start-{_digest(known, params, buffers, public)}.safetensors"
    start = _read(path, params, buffers) if path else None
    if start is None:
        logger.info("pre-training: %g epochs of %d samples", local.epochs, len(public))
        central = LocalTrainer(task, layout, local, seed)
        update = central.train(params, buffers, public, round_index=0, client=0)
        if not update.is_sound(buffers):
            lr = getattr(local.optimizer, "lr", None)
            raise InputError("pretraining.lr", lr, "a rate at which the loss stays finite")
        start = update.params.clone(), update.buffers.clone()
        if path is None:
            logger.warning(NOT_KEPT, "this user has no home directory")
        else:
            _keep(path, *start)
    layout.bind_(task.model, start[0])
    layout.load_buffers_(task.model, start[1])


def _digest(known: str, params: Tensor, buffers: Tensor, public: Samples) -> str:
    """Of all that the result depends on."""
    found = hashlib.sha256(f"{VERSION}/{known}".encode())
    for tensor in (params, buffers, *public.all()):
        found.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]


def _read(path: Path, params: Tensor, buffers: Tensor) -> tuple[Tensor, Tensor] | None:
    """What is kept there; None when there is nothing, or it is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            said = (file.metadata() or {}).get(CONTENT)
            kept = file.get_tensor("params"), file.get_tensor("buffers")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, SafetensorError):
        said = None
    if (
        said is None
        or said != _content(*kept)
        or [one.shape for one in kept] != [params.shape, buffers.shape]
    ):
        logger.warning("%s is damaged, or of an earlier version: it is made anew", path)
        return None
    return kept[0].to(params.device), kept[1].to(params.device)


def _keep(path: Path, params: Tensor, buffers: Tensor) -> None:
    """Keeps a start; where that is not possible, a warning says so, and the run goes on with it."""
    scratch = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    kept = {"params": params.cpu(), "buffers": buffers.cpu()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.touch(exist_ok=False)
        # safetensors makes files that nobody else may read, whatever the user's umask says.
        mode = scratch.stat().st_mode & 0o666
        save_file(kept, scratch, metadata={CONTENT: _content(*kept.values())})
        scratch.chmod(mode)
        scratch.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            scratch.unlink()
        logger.warning(NOT_KEPT, f"{path.parent}: {getattr(error, 'strerror', None) or error}")


def _content(*tensors: Tensor) -> str:
    """SHA-256 of what is kept, with types and shapes."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()
