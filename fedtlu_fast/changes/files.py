"""Opens the tensors of a checkpoint: a safetensors file, or a directory with one file or a sharded index.

Only safetensors files are read. A pickle can run code, so it is never opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fedtlu_fast.errors import InputError, listed

INDEX = ".safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Dtypes of eight bits or fewer per number. PyTorch reads all of them but converts only those of eight bits.
_NARROW = ("F8", "F6", "F4")
_FLOATING = ("F64", "F32", "F16", "BF16", *_NARROW)


@dataclass(frozen=True)
class Stored:
    """Refers to a tensor in an open safetensors file, or in memory.

    Attributes:
        field: the checkpoint that the tensor belongs to, ``BEFORE`` or ``AFTER``, for messages.
        file: the open file.
        name: the tensor's name in the file.
        shape: the tensor's shape.
        dtype: the name of the tensor's dtype in the file format, such as ``BF16``.
        alias: whether this is a second name for a tensor that the file holds under another name.
    """

    field: str
    file: Any
    name: str
    shape: tuple[int, ...]
    dtype: str
    alias: bool = False

    @property
    def floating(self) -> bool:
        """Tells whether the tensor holds real floating-point numbers."""
        return self.dtype.startswith(_FLOATING)

    @property
    def narrow(self) -> bool:
        """Tells whether the numbers have eight bits or fewer, as in quantised models."""
        return self.dtype.startswith(_NARROW)

    def read(self) -> Tensor:
        """Reads the whole tensor, in float64."""
        return self._converted(self.file.get_tensor, self.name)

    def rows(self, start: int, stop: int) -> Tensor:
        """Reads ``[..., start:stop, :]`` of a tensor with at least two dimensions, in float64."""
        return self._converted(lambda name: self.file.get_slice(name)[..., start:stop, :], self.name)

    def _converted(self, read: Callable[[str], Tensor], name: str) -> Tensor:
        try:
            return read(name).to(torch.float64)
        except MemoryError:
            raise
        except Exception as error:  # errors of the library, or of torch for a dtype that it cannot convert
            raise InputError(
                f"{self.field}: {self.name}",
                self.dtype,
                "a dtype that PyTorch converts: F64, F32, F16, BF16 or F8",
                f"Save the checkpoint in one of these dtypes. ({error})",
            ) from error


@dataclass(frozen=True)
class Checkpoint:
    """Holds the tensors of one checkpoint, or of one model in memory.

    Attributes:
        field: ``BEFORE`` or ``AFTER``, for messages.
        source: the path or model that the user gave, for messages.
        tensors: the tensors by name.
        not_read: sentences about files and tensors that were not read.
        ordered: whether the tensors are in the model's own order, as in memory; files sort them by name.
    """

    field: str
    source: str
    tensors: dict[str, Stored]
    not_read: tuple[str, ...]
    ordered: bool = False


def open_checkpoint(field: str, path: Path, stack: ExitStack) -> Checkpoint:
    """Opens a checkpoint and reads the list of its tensors; their numbers are read later, on demand.

    An index decides which file holds which tensor. If a directory has ``model.safetensors`` and an index that
    does not name this file, the file is read and the index is ignored, as in Transformers.

    Args:
        field: ``BEFORE`` or ``AFTER``, for messages.
        path: a safetensors file, an index, or a directory.
        stack: the stack that keeps the files open and closes them.

    Raises:
        InputError: A file is missing, damaged or a pickle, or an index does not fit its files.
    """
    try:
        source, notes = _source(field, path)
    except OSError as error:
        raise InputError(field, str(path), f"a path that can be read; {error}") from error
    if not source.name.endswith(INDEX):
        return Checkpoint(field, str(path), _tensors(field, source, stack), tuple(notes))
    placed = _weight_map(field, source)
    stored: dict[str, Stored] = {}
    unmapped: list[str] = []
    for shard in sorted(set(placed.values())):
        held = _tensors(field, source.parent / shard, stack)
        for name, tensor in held.items():
            if placed.get(name) == shard:
                stored[name] = tensor
            elif not tensor.alias:
                unmapped.append(f"{name} in {shard}")
    absent = sorted(placed.keys() - stored.keys())
    if absent:
        raise InputError(
            f"{field}: {absent[0]}",
            f"not in {placed[absent[0]]}" + (f", and {len(absent) - 1} more" if len(absent) > 1 else ""),
            f"the tensors that {source.name} says are there",
        )
    if unmapped:
        notes.append(f"{source.name} does not name {listed(unmapped, 5)}: not read")
    return Checkpoint(field, str(path), stored, tuple(notes))


def _source(field: str, path: Path) -> tuple[Path, list[str]]:
    """Returns the safetensors file or index to read, and sentences about other files that are not read."""
    if path.is_file():
        if path.suffix in PICKLES:
            raise InputError(
                field,
                str(path),
                "a .safetensors file; pickles are never opened",
                "Save it with safetensors.torch.",
            )
        return path, []
    if not path.is_dir():
        raise InputError(field, str(path), "a .safetensors file or a model directory that exists")
    names = sorted(item.name for item in path.iterdir())
    files = [name for name in names if name.endswith(".safetensors")]
    indexes = [name for name in names if name.endswith(INDEX)]
    whole = "model.safetensors"
    chosen = f"model{INDEX}" if f"model{INDEX}" in indexes else indexes[0] if len(indexes) == 1 else ""
    if whole in files and not (chosen and whole in _weight_map(field, path / chosen).values()):
        beside = [name for name in (*files, *indexes) if name != whole]
        return path / whole, [f"{whole} is read; {listed(beside, 5)} not read"] if beside else []
    if chosen:
        placed = set(_weight_map(field, path / chosen).values())
        beside = [name for name in (*files, *indexes) if name not in placed and name != chosen]
        return path / chosen, [f"{chosen} does not name {listed(beside, 5)}: not read"] if beside else []
    if len(files) != 1 or indexes:
        held = listed([*indexes, *(name for name in names if name not in indexes)], 5) or "nothing"
        raise InputError(field, str(path), f"a directory with {whole}, but it holds {held}")
    return path / files[0], []


def _weight_map(field: str, index: Path) -> dict[str, str]:
    """Reads an index: tensor name -> file name."""

    def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
        return found

    try:
        text = index.read_text(encoding="utf-8-sig")
        placed = json.loads(text, object_pairs_hook=without_repetition)["weight_map"]
        if not isinstance(placed, dict) or not placed:
            raise ValueError("weight_map is not an object with names of tensors")
        odd = next((name for name, shard in placed.items() if not isinstance(shard, str)), None)
        if odd is not None:
            raise ValueError(f"the file of {odd!r} is not text")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(field, str(index), f"an index with a weight_map; {error!r}") from error
    for shard in placed.values():
        if Path(shard).name != shard or not shard.endswith(".safetensors") or "\0" in shard:
            raise InputError(field, shard, f"the name of a .safetensors file in {index.parent}")
    return placed


def _tensors(field: str, path: Path, stack: ExitStack) -> dict[str, Stored]:
    stored: dict[str, Stored] = {}
    try:
        if not path.is_file():  # opening a pipe would wait forever
            raise ValueError("it does not exist" if not path.exists() else "it is not a regular file")
        file = stack.enter_context(safe_open(str(path), framework="pt"))
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            part = file.get_slice(name)
            stored[name] = Stored(field, file, name, tuple(part.get_shape()), part.get_dtype())
        # Tensors that safetensors.torch.save_model left out because they share the memory of another one.
        for name, held in (file.metadata() or {}).items():
            if name not in stored and held in stored and not stored[held].alias:
                own = stored[held]
                stored[name] = Stored(field, file, own.name, own.shape, own.dtype, alias=True)
    except MemoryError:
        raise
    except Exception as error:  # the library raises many errors for bytes that are not a safetensors file
        raise InputError(field, str(path), f"a complete safetensors file; {error}") from error
    return stored
