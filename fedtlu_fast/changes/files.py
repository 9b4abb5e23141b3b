"""Opens the tensors of a checkpoint in files: one file, or a directory with one file or an index of shards.

Safetensors files are preferred; a directory without any may hold files of ``torch.save`` (`pickled`) or one
GGUF file (`gguf_file`).
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtlu_fast.changes import gguf_file, pickled, safetensors_file
from fedtlu_fast.changes.stored import Checkpoint, Stored
from fedtlu_fast.errors import InputError, listed

NEVER = (".ckpt", ".pkl")
"""Endings of pickles that hold more than a state dict."""
INDEX = ".index.json"
READABLE = "a .safetensors, .bin, .pt, .pth or .gguf file"


@dataclass(frozen=True)
class _Form:
    """The names that Transformers gives to the files of a checkpoint.

    Attributes:
        suffix: the ending of files with tensors.
        whole: the name of a single file.
    """

    suffix: str
    whole: str

    @property
    def index(self) -> str:
        """Returns the ending of an index."""
        return f"{self.suffix}{INDEX}"


_SAFE, _PICKLED = _Form(".safetensors", "model.safetensors"), _Form(".bin", "pytorch_model.bin")


def open_files(field: str, path: Path, stack: ExitStack) -> Checkpoint:
    """Opens a checkpoint and reads the list of its tensors; their numbers are read later, on demand.

    An index decides which file holds which tensor. If a directory has ``model.safetensors`` and an index that
    does not name this file, the file is read and the index is ignored, as in Transformers.

    Args:
        field: ``BEFORE``, ``AFTER`` or ``BASE``, for messages.
        path: a file with tensors, an index of such files, or a directory.
        stack: the stack that keeps the files open and closes them.

    Raises:
        InputError: A file is missing, damaged or a pickle with more than tensors, or an index does not fit
            its files.
    """
    try:
        source, not_read = _source(field, path)
    except OSError as error:
        raise InputError(field, str(path), f"a path that can be read; {error}") from error
    if not source.name.endswith(INDEX):
        tensors = _tensors(field, source, stack)
        return Checkpoint(field, str(path), tensors, tuple(not_read), notes=_notes([source.name]))
    placed = _weight_map(field, source)
    shards = sorted(set(placed.values()))
    stored: dict[str, Stored] = {}
    unmapped: list[str] = []
    for shard in shards:
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
        not_read.append(f"{source.name} does not name {listed(unmapped, 5)}: not read")
    return Checkpoint(field, str(path), stored, tuple(not_read), notes=_notes(shards))


def gguf_of(path: Path) -> Path | None:
    """Returns the GGUF file that a path stands for; None if it stands for files of another kind."""
    if path.is_dir():
        names = [item.name for item in path.iterdir()]
        files = [name for name in names if name.lower().endswith(".gguf")]
        others = any(name.endswith((_SAFE.suffix, _SAFE.index, _PICKLED.suffix)) for name in names)
        return path / files[0] if len(files) == 1 and not others else None
    return path if path.name.lower().endswith(".gguf") and path.is_file() else None


def _notes(names: list[str]) -> tuple[str, ...]:
    pickles = [name for name in names if name.endswith(pickled.SUFFIXES)]
    how = "read with weights_only=True, so that no code in it ran"
    return (f"{listed(pickles, 5)}: a pickle, {how}",) if pickles else ()


def _tensors(field: str, path: Path, stack: ExitStack) -> dict[str, Stored]:
    if path.name.endswith(pickled.SUFFIXES):
        return pickled.tensors_of(field, path)
    if path.name.lower().endswith(".gguf"):
        return gguf_file.tensors_of(field, path, stack)
    return safetensors_file.tensors_of(field, path, stack)


def _source(field: str, path: Path) -> tuple[Path, list[str]]:
    """Returns the file or index to read, and sentences about other files that are not read."""
    if path.is_file():
        if path.suffix in NEVER:
            fix = "Save the state dict with safetensors.torch."
            raise InputError(field, str(path), f"{READABLE}; other pickles are never opened", fix)
        return path, []
    if not path.is_dir():
        raise InputError(field, str(path), f"{READABLE}, or a model directory, that exists")
    names = sorted(item.name for item in path.iterdir())
    lone = gguf_of(path)
    if lone is not None:
        return lone, []
    # Files of torch.save are read only if there are no others.
    safe = any(name.endswith((_SAFE.suffix, _SAFE.index)) for name in names)
    form = _SAFE if safe else _PICKLED
    files = [name for name in names if name.endswith(form.suffix)]
    indexes = [name for name in names if name.endswith(form.index)]
    standard = f"{form.whole}{INDEX}"
    chosen = standard if standard in indexes else indexes[0] if len(indexes) == 1 else ""
    if form.whole in files and not (chosen and form.whole in _weight_map(field, path / chosen).values()):
        beside = [name for name in (*files, *indexes) if name != form.whole]
        notes = [f"{form.whole} is read; {listed(beside, 5)} not read"] if beside else []
        return path / form.whole, notes
    if chosen:
        placed = set(_weight_map(field, path / chosen).values())
        beside = [name for name in (*files, *indexes) if name not in placed and name != chosen]
        return path / chosen, [f"{chosen} does not name {listed(beside, 5)}: not read"] if beside else []
    if len(files) != 1 or indexes:
        held = listed([*indexes, *(name for name in names if name not in indexes)], 5) or "nothing"
        raise InputError(field, str(path), f"a directory with {_SAFE.whole}, but it holds {held}")
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
    suffix = _PICKLED.suffix if index.name.endswith(_PICKLED.index) else _SAFE.suffix
    for shard in placed.values():
        if Path(shard).name != shard or not shard.endswith(suffix) or "\0" in shard:
            raise InputError(field, shard, f"the name of a {suffix} file in {index.parent}")
    return placed
