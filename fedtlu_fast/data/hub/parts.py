"""Loads a data set with `datasets` and divides its splits into training, test and unread parts."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtlu_fast.data.hub.load import load_hub
from fedtlu_fast.data.hub.location import Location
from fedtlu_fast.data.reading import entries, is_data, unpacked_suffix
from fedtlu_fast.data.sources.image_folder import ENDINGS
from fedtlu_fast.data.splits import divide, parse
from fedtlu_fast.errors import InputError, listed
from fedtlu_fast.shown import one_line

TABLES = (".csv", ".json", ".jsonl", ".parquet", ".tsv", ".txt")
HEAD = 2**20
"""Bytes of a data set's card that are searched for its splits."""


@dataclass(frozen=True)
class HubParts:
    """A data set's rows by part (see `splits`).

    Attributes:
        source: the data set as settings write it, for messages.
        train: the training rows.
        test: the test rows; None if there are none.
        trained: names of the splits that hold the training rows.
        tests: names of the splits that hold the test rows.
        unread: names of the splits that are not read.
    """

    source: str
    train: Any
    test: Any
    trained: Sequence[str]
    tests: Sequence[str]
    unread: Sequence[str]


def load_parts(location: Location) -> HubParts:
    """Loads a data set and joins the splits of each part.

    Args:
        location: the place of the data set. If `datasets` takes all files of a local folder for one split, as
            with Train.csv and Test.csv, the files are divided by their names and by the names of their
            folders.

    Raises:
        InputError: the data set cannot be loaded, has no training split, or has splits that cannot be joined.
    """
    splits, source = load_hub(location), location.source
    if list(splits) == ["train"] and location.folder is not None:
        folder = location.folder / location.configuration
        files = _by_part(folder, source)
        splits = load_hub(Location(str(folder)), files=files) if files else splits
    found = divide(list(splits), source)
    train = [name for name in found.train if parse(name).part]
    if not train:
        raise InputError("data.source", source, f"a split train; it has {listed(list(splits))}")
    unread = [name for name in splits if name not in (*train, *found.test)]
    return HubParts(
        source=source,
        train=_joined(source, splits, train),
        test=_joined(source, splits, found.test),
        trained=train,
        tests=found.test,
        unread=unread,
    )


def _joined(source: str, splits: Any, names: Sequence[str]) -> Any:
    """Returns the rows of several splits as one table, or None for no split."""
    from datasets import concatenate_datasets

    if len(names) < 2:
        return splits[names[0]] if names else None
    try:
        return concatenate_datasets([splits[name] for name in names])
    except ValueError as error:
        expected = f"the same columns in the splits {listed(names)}; {one_line(error)}"
        raise InputError("data.source", source, expected) from None


def _by_part(folder: Path, source: str) -> dict[str, list[str]] | None:
    """Returns a folder's files by part; None if no name says a part, or if a README describes the splits."""
    if not folder.is_dir() or _describes_splits(folder / "README.md"):
        return None
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    _add(folder, source, found)
    if not found["train"] or not (found["test"] or found["validation"]):
        return None
    return {part: own for part, own in found.items() if own}


def _add(folder: Path, source: str, found: dict[str, list[str]]) -> None:
    """Adds the files below a folder to `found`, divided by the names of files and folders."""
    own = {item.name: item for item in entries(folder) if item.is_dir() or _is_data_file(item)}
    # A folder of nothing but images is a label, as in the folders that `image_folder` reads.
    named = [
        name
        for name, item in own.items()
        if (item.is_dir() and not _is_label(item)) or unpacked_suffix(item) in TABLES
    ]
    divided = divide(named, source)
    found["validation"] += _files(own[name] for name in divided.validation)
    found["test"] += _files(own[name] for name in divided.test)
    for name, item in own.items():
        if name in divided.train and item.is_dir() and parse(name).part is None:
            _add(item, source, found)
        elif name in divided.train or name not in named:
            found["train"] += _files([item])


def _files(items: Iterable[Path]) -> list[str]:
    below = ((item, sorted(item.rglob("*")) if item.is_dir() else [item]) for item in items)
    return [
        glob.escape(str(file.absolute()))
        for item, files in below
        for file in files
        if is_data(file.relative_to(item)) and _is_data_file(file)
    ]


def _is_label(folder: Path) -> bool:
    inside = entries(folder)
    return bool(inside) and all(unpacked_suffix(item) in ENDINGS for item in inside)


def _is_data_file(path: Path) -> bool:
    return unpacked_suffix(path) in (*TABLES, *ENDINGS) and path.is_file()


def _describes_splits(readme: Path) -> bool:
    """Tells whether the head of a data set's card says which files belong to which split."""
    if not readme.is_file():
        return False
    head, _, _ = readme.read_bytes()[:HEAD].decode("utf-8", "replace").removeprefix("---").partition("\n---")
    return re.search(r"^[ -]*data_files:", head, re.MULTILINE) is not None
