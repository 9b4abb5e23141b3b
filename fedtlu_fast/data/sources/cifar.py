"""Reads CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their binary version or from Parquet files.

The binary version consists of rows of bytes: a label (CIFAR-100: the coarse label and the fine label), then
1,024 bytes for each of red, green and blue, a 32 x 32 image row by row (www.cs.toronto.edu/~kriz/cifar.html).
The Python version on the same page is refused, because it consists of pickles, which run code when they are
read.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import ClassVar

import numpy as np

from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.hub.images import load_image_hub
from fedtlu_fast.data.hub.location import Location
from fedtlu_fast.data.image_set import PIXELS, ImagePixels, ImageSet, ImageSize, Pixels
from fedtlu_fast.data.pixels import scale_all
from fedtlu_fast.data.reading import check_file, is_data
from fedtlu_fast.data.sources.source import ImageSource, PathSource, Read
from fedtlu_fast.data.splits import announce
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

COLOURS = 3 * 32 * 32
LARGEST = 2**30
"""Largest size of a file in an archive, in bytes; the largest file of CIFAR has 153,700,000."""


@dataclass(frozen=True)
class Version:
    """Names and contents of the files of CIFAR-10 or of CIFAR-100.

    Attributes:
        train: names of the training files.
        test: name of the test file.
        labels: for each label byte of a row, in order: the attribute, the number of its values, and the name
            of the file with the values' names.
        pickles: names of the files of the Python version.
        archive: name of the archive of the binary version.
    """

    train: tuple[str, ...]
    test: str
    labels: tuple[tuple[str, int, str], ...]
    pickles: frozenset[str]
    archive: str


class Cifar(PathSource, ImageSource):
    """The common part of `Cifar10` and `Cifar100`."""

    version: ClassVar[Version]
    path: str
    image_size: ImageSize
    image_pixels: ImagePixels

    def images(self) -> Read[ImageSet]:
        """See `ImageSource`.

        Raises:
            InputError: files are missing or damaged, or they are the Python version.
        """
        found = _load(str(self), self.version, self.path, self.image_size, self.image_pixels)
        train, test = (_scaled(part, self.image_size) for part in (found.train, found.test))
        return Read(train, test, found.origin)


@part
class Cifar10(Cifar):
    """CIFAR-10: 60,000 photographs of 32 x 32 pixels with 10 labels.

    Attributes:
        path: a directory or a ``.tar`` or ``.tar.gz`` archive with the binary version, or a directory with
            Parquet files, such as a copy of the hub's.
        image_size: side in pixels of a square to which images are scaled; null: they keep their size.
        image_pixels: largest number of pixels of one image file; a small file can claim to hold billions.
    """

    version = Version(
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test="test_batch.bin",
        labels=(("label", 10, "batches.meta.txt"),),
        pickles=frozenset({"test_batch", *(f"data_batch_{number}" for number in range(1, 6))}),
        archive="cifar-10-binary.tar.gz",
    )
    path: str
    image_size: ImageSize = None
    image_pixels: ImagePixels = PIXELS


@part
class Cifar100(Cifar):
    """CIFAR-100: 60,000 photographs of 32 x 32 pixels with 100 labels, and 20 values of ``coarse_label``.

    Attributes:
        path: see `Cifar10`.
        image_size: see `Cifar10`.
        image_pixels: see `Cifar10`.
    """

    version = Version(
        train=("train.bin",),
        test="test.bin",
        labels=(("coarse_label", 20, "coarse_label_names.txt"), ("label", 100, "fine_label_names.txt")),
        pickles=frozenset({"train", "test"}),
        archive="cifar-100-binary.tar.gz",
    )
    path: str
    image_size: ImageSize = None
    image_pixels: ImagePixels = PIXELS


def _scaled(found: ImageSet | None, size: int | None) -> ImageSet:
    assert found is not None
    return replace(found, images=scale_all(found.images, size))


def _load(source: str, version: Version, location: str, size: int | None, limit: int) -> Read[ImageSet]:
    wanted = (*version.train, version.test, *(file for _, _, file in version.labels))
    try:
        path = Path(location).expanduser()
        if path.is_dir() and (tables := _tables(path)):
            if rows := [file for file in _files(path) if file.name in wanted]:
                expected = f"one version of the data; there are {tables[0]} and {rows[0]}"
                raise InputError("data.source", source, expected, "Name the folder of one.")
            # Only these names have to differ: in some copies of the hub the folder says the split, as in
            # train/0000.parquet, and names repeat.
            _check_once(source, [file for file in tables if "train" in file.name or "test" in file.name])
            return load_image_hub(Location(str(path)), size, limit)
        files = _directory(source, path, wanted) if path.is_dir() else _archive(source, path, wanted)
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        if isinstance(error, InputError):
            raise
        expected = f"a directory or an archive of the binary version, or Parquet files; {error}"
        raise InputError("data.source", source, expected) from None
    missing = [name for name in (*version.train, version.test) if name not in files]
    if missing and version.pickles & files.keys():
        raise InputError(
            "data.source",
            source,
            "the binary version; this is the Python version: pickles, which run code when they are read",
            f"Get {version.archive} from the same page, or Parquet files.",
        )
    if missing:
        raise InputError("data.source", source, f"the binary version; it lacks {', '.join(missing)}")
    train = np.concatenate([_rows(version, name, files[name]) for name in version.train])
    test = _rows(version, version.test, files[version.test])
    origin = announce("images", len(test), [version.test], train=version.train)
    return Read(_image_set(version, train, files), _image_set(version, test, files), origin)


def _files(path: Path) -> list[Path]:
    """Returns the files below a directory, without those of `reading.NO_DATA`."""
    inside = (file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file())
    return [path / file for file in inside if is_data(file)]


def _tables(path: Path) -> list[Path]:
    """Returns the Parquet files below a directory."""
    return [file for file in _files(path) if file.suffix == ".parquet"]


def _directory(source: str, path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Returns the contents of the wanted files below a directory; other files have empty contents."""
    found = _files(path)
    _check_once(source, [file for file in found if file.name in wanted])
    return {file.name: file.read_bytes() if file.name in wanted else b"" for file in found}


def _archive(source: str, path: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Returns the same for an archive; nothing is written to disk."""
    found, read = {}, []
    check_file(path)
    with tarfile.open(path) as archive:
        for member in archive:
            inside = PurePosixPath(member.name)
            if not member.isreg() or not is_data(inside):
                continue
            content = b""
            if inside.name in wanted:
                read.append(inside)
                _check_once(source, read)
                if member.size > LARGEST:
                    expected = f"files of at most {LARGEST:,} bytes; {inside} has {member.size:,}"
                    raise InputError("data.source", source, expected)
                extracted = archive.extractfile(member)
                content = extracted.read() if extracted is not None else b""
            found[inside.name] = content
    return found


def _check_once(source: str, files: Sequence[PurePath]) -> None:
    """Checks that no file occurs twice, for example as an old copy in another folder."""
    seen: dict[str, PurePath] = {}
    for file in files:
        first = seen.setdefault(file.name, file)
        if first is not file:
            expected = f"each file once; there are {first} and {file}"
            raise InputError("data.source", source, expected, "Name one of the folders, or remove one.")


def _rows(version: Version, name: str, content: bytes) -> Pixels:
    """Returns [N, labels + pixels] uint8, the rows of a file of the binary version."""
    width = len(version.labels) + COLOURS
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
    """Returns the names in a file with a name on each line, or numbers if there are not `count` of them."""
    names = tuple(content.decode("utf-8", errors="replace").split())
    return names if len(set(names)) == count else tuple(map(str, range(count)))
