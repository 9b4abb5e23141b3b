"""Opens what a user gives as a model: a module, a state dict, files, an adapter, or a name on the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from fedtlu_fast.changes.adapters import is_adapter, open_adapter
from fedtlu_fast.changes.files import gguf_of, open_files
from fedtlu_fast.changes.hub import place_of
from fedtlu_fast.changes.memory import held_in_memory
from fedtlu_fast.changes.stored import Checkpoint
from fedtlu_fast.errors import InputError

Model = nn.Module | Mapping[str, Tensor] | str | os.PathLike[str]
"""A module, a state dict, the path of a file or directory, or a name on the hub."""


def opened(given: Mapping[str, Model], stack: ExitStack) -> dict[str, Checkpoint]:
    """Opens all models of one comparison.

    Args:
        given: the models, under ``BEFORE``, ``AFTER`` and perhaps ``BASE``.
        stack: the stack that keeps files open and closes them.

    Raises:
        InputError: A model cannot be found or read.
    """
    found = {
        field: place_of(field, model) if isinstance(model, str | os.PathLike) else model
        for field, model in given.items()
    }
    module = next((model for model in found.values() if isinstance(model, nn.Module)), None)
    ggufs = [isinstance(model, Path) and _gguf(field, model) is not None for field, model in found.items()]
    checkpoints = {}
    for (field, model), gguf in zip(found.items(), ggufs, strict=True):
        if not isinstance(model, Path):
            checkpoint = held_in_memory(field, model, module)
        elif is_adapter(model):
            checkpoint = open_adapter(field, model, stack)
        elif gguf and not all(ggufs):
            checkpoint = _by_transformers(field, model)
        else:
            checkpoint = open_files(field, model, stack)
        checkpoints[field] = checkpoint
    return checkpoints


def _gguf(field: str, path: Path) -> Path | None:
    try:
        return gguf_of(path)
    except OSError as error:
        raise InputError(field, str(path), f"a path that can be read; {error}") from error


def _by_transformers(field: str, path: Path) -> Checkpoint:
    """Loads a whole GGUF file through Transformers, whose names and order of rows the other side has."""
    # Imported here, because Transformers takes seconds to load.
    from transformers import AutoModelForCausalLM

    from fedtlu_fast.models.pretrained import load_model

    file = gguf_of(path) or path
    try:
        model = load_model(AutoModelForCausalLM, str(file), "a language model")
    except InputError as error:
        raise error.of(field) from error
    held = held_in_memory(field, model, None)
    size = sum(tensor.count for tensor in held.tensors.values()) * 4 / 1e9
    note = f"{file.name} was loaded by Transformers as a whole, in float32 ({size:.1f} GB), for its names"
    return replace(held, source=str(path), notes=(note,), ordered=False)
