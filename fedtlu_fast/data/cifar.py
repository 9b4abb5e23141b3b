"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their binary version or Parquet.

The binary version is rows of bytes: a label (CIFAR-100: the coarse one, then the fine one), then 1,024 bytes
for each of red, green and blue, a 32 x 32 image row by row (www.cs.toronto.edu/~kriz/cifar.html). The Python
version of the same page is pickles, which run whatever code they hold when they are read: it is refused.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.image_hub import load_image_hub
from fedtlu_fast.data.image_set import ImageSet, Splits
from fedtlu_fast.data.pixels import Pixels
from fedtlu_fast.errors import InputError

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Version:
    """What the files of one of the two are called and hold.

    Attributes:
        train: names of the files to train on.
        test: name of the file to test on.
        labels: what the label bytes of a row are, the first first: attribute, number of values, and the file
            with their names.
        pickles: files that the Python version consists of.
    """

    train: tuple[str, ...]
    test: str
    labels: tuple[tuple[str, int, str], ...]
    pickles: frozenset[str]


VERSIONS = {
    "cifar10": Version(
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test="test_batch.bin",
        labels=(("label", 10, "batches.meta.txt"),),
        pickles=frozenset({"test_batch", *(f"data_batch_{number}" for number in range(1, 6))}),
    ),
    "cifar100": Version(
        train=("train.bin",),
        test="test.bin",
        labels=(("coarse_label", 20, "coarse_label_names.txt"), ("label", 100, "fine_label_names.txt")),
        pickles=frozenset({"train", "test"}),
    ),
}


def load_cifar(kind: str, location: str, size: int | None = None) -> Splits:
    """Training and test images; CIFAR-100's also have the attribute ``coarse_label``.

    Args:
        kind: cifar10 or cifar100.
        location: a directory or a ``.tar`` or ``.tar.gz`` archive with the binary version, or a directory
            with Parquet files, such as a copy of the hub's.
        size: for Parquet; see `load_image_hub`.

    Raises:
        InputError: there is no such data, some is missing or damaged, or it is the Python version.
    """
    version, source = VERSIONS[kind], f"{kind}:{location}"
    wanted = (*version.train, version.test, *(file for _, _, file in version.labels))
    try:
        path = Path(location).expanduser()
        if path.is_dir() and any(path.rglob("*.parquet")):
            return load_image_hub(str(path), size)
        files = _directory(path, wanted) if path.is_dir() else _archive(path, wanted)
    except (OSError, EOFError, RuntimeError, tarfile.TarError, zlib.error) as error:
        expected = f"a directory or an archive of the binary version, or Parquet files; {error}"
        raise InputError("data.source", source, expected) from None
    missing = [name for name in (*version.train, version.test) if name not in files]
    if missing and version.pickles & files.keys():
        raise InputError(
            "data.source",
            source,
            "the binary version; this is the Python version: pickles, which run code when they are read",
            f"Get cifar-{kind[5:]}-binary.tar.gz from the same page, or Parquet files.",
        )
    if missing:
        raise InputError("data.source", source, f"the binary version; it lacks {', '.join(missing)}")
    train = np.concatenate([_rows(version, name, files[name]) for name in version.train])
    test = _rows(version, version.test, files[version.test])
    return _image_set(version, train, files), _image_set(version, test, files)


def _directory(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Contents of the wanted files, wherever they lie in it; of others the names alone."""
    found = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {file.name: file.read_bytes() if file.name in wanted else b"" for file in found}


def _archive(path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """The same of an archive, of which nothing is written to disk."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            content = archive.extractfile(member) if name in wanted else None
            found[name] = content.read() if content is not None else b""
    return found


def _rows(version: Version, name: str, content: bytes) -> Pixels:
    """[N, labels + pixels]."""
    width = len(version.labels) + PIXELS
    if not content or len(content) % width:
        expected = f"rows of {width} bytes, whole ones; the file may be cut off"
        raise InputError("data.source", name, f"{expected}; it has {len(content)} bytes")
    rows = np.frombuffer(content, np.uint8).reshape(-1, width)
    for column, (label, count, _) in enumerate(version.labels):
        if rows[:, column].max() >= count:
            given = f"{label} {rows[:, column].max()}"
            raise InputError(name, given, f"numbers from 0 to {count - 1}; the file may be damaged")
    return rows


def _image_set(version: Version, rows: Pixels, files: Mapping[str, bytes]) -> ImageSet:
    columns = {
        label: Attribute(rows[:, column].astype(np.int64), _names(files.get(file, b""), count))
        for column, (label, count, file) in enumerate(version.labels)
    }
    images = rows[:, len(columns) :].reshape(-1, 3, 32, 32).copy()
    return ImageSet(images, {"label": columns.pop("label"), **columns})


def _names(content: bytes, count: int) -> tuple[str, ...]:
    """Of a file with a name a line; numbers where there is none, or not so many."""
    names = tuple(content.decode("utf-8", errors="replace").split())
    return names if len(set(names)) == count else tuple(map(str, range(count)))
