"""The splits of a data set that `datasets` loads, by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtlu_fast.data.hub import load_hub
from fedtlu_fast.data.hub_location import read_location
from fedtlu_fast.data.reading import entries, unpacked_suffix
from fedtlu_fast.data.splits import divide, listed, parse
from fedtlu_fast.errors import InputError
from fedtlu_fast.shown import one_line

TABLES = (".csv", ".json", ".jsonl", ".parquet", ".tsv", ".txt")


@dataclass(frozen=True)
class HubParts:
    """A data set's rows by part (see `splits`).

    Attributes:
        source: the data set, for messages.
        train: the rows to train on.
        test: the rows to test on; None where there are none.
        tests: names of the splits that hold these.
        unread: names of splits that are not read.
    """

    source: str
    train: Any
    test: Any
    tests: Sequence[str]
    unread: Sequence[str]


def load_parts(location: str) -> HubParts:
    """The splits of a data set; those of one part are joined.

    Args:
        location: see `load_hub`. Of a local folder whose file names `datasets` takes all for one split, such
            as Train.csv and Test.csv, the files are divided by their names.

    Raises:
        InputError: it cannot be loaded, has no split to train on, or splits that cannot be joined.
    """
    place = read_location(location)
    splits = load_hub(location)
    if list(splits) == ["train"] and not place.configuration:
        files = _by_part(Path(place.name), place.source)
        splits = load_hub(location, files=files) if files else splits
    found = divide(list(splits), place.source)
    train = [name for name in found.train if parse(name).part]
    if not train:
        raise InputError("data.source", place.source, f"a split train; it has {listed(list(splits))}")
    unread = [name for name in splits if name not in (*train, *found.test)]
    return HubParts(
        source=place.source,
        train=_joined(place.source, splits, train),
        test=_joined(place.source, splits, found.test),
        tests=found.test,
        unread=unread,
    )


def _joined(source: str, splits: Any, names: Sequence[str]) -> Any:
    """The rows of several splits as one; None of none."""
    from datasets import concatenate_datasets

    if len(names) < 2:
        return splits[names[0]] if names else None
    try:
        return concatenate_datasets([splits[name] for name in names])
    except ValueError as error:
        expected = f"the same columns in the splits {listed(names)}; {one_line(error)}"
        raise InputError("data.source", source, expected) from None


def _by_part(folder: Path, source: str) -> dict[str, list[str]] | None:
    """The files of a folder by part; None where their names say nothing, or a README describes the splits."""
    if not folder.is_dir() or (folder / "README.md").exists():
        return None
    names = [own.name for own in entries(folder) if unpacked_suffix(own) in TABLES and own.is_file()]
    found = divide(names, source)
    parts = {"train": found.train, "validation": found.validation, "test": found.test}
    if not found.train or not (found.test or found.validation):
        return None
    return {part: [str(folder / name) for name in own] for part, own in parts.items() if own}
