"""Reads images from a folder for each label, with or without a folder for each domain around them.

The layout is ``DIR/LABEL/*`` or ``DIR/DOMAIN/LABEL/*``, as in DomainNet (Peng et al., ICCV 2019). Folders
whose names say a part, such as ``train`` and ``Testing`` (see `splits`), may stand directly below DIR, below
each domain, or, if they hold the images themselves, below each label. Directly below DIR, such a folder is a
part only if it holds folders: ``DIR/train/*.jpg`` beside ``DIR/bus/*.jpg`` makes "train" a label. Files of
operating systems and editors (see `reading`) and files with other endings than `ENDINGS` are left out. Links
are followed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtlu_fast.data import reading
from fedtlu_fast.data.image_set import PIXELS, ImagePixels, ImageSet, ImageSize
from fedtlu_fast.data.labelled import by_name
from fedtlu_fast.data.pixels import read_images
from fedtlu_fast.data.sources.source import ImageSource, PathSource, Read
from fedtlu_fast.data.splits import announce, divide, parse
from fedtlu_fast.errors import InputError, listed
from fedtlu_fast.parts import part

logger = logging.getLogger("fedtlu_fast.data")
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Entry:
    """An image's file with its label and its domain, which are the names of folders."""

    file: Path
    label: str
    domain: str | None


@dataclass(frozen=True)
class Parts:
    """Training and test images, names of the folders that hold the test, and of folders that are not read."""

    train: list[Entry]
    test: list[Entry]
    tests: list[str]
    unread: list[str]


@part
class ImageFolder(PathSource, ImageSource):
    """Images in folders by label, or by domain and label.

    Attributes:
        path: the directory; the top of this module describes its layout.
        image_size: side in pixels of a square to which images are scaled; null: they keep their size.
        image_pixels: largest number of pixels of one image file; a small file can claim to hold billions.
    """

    written = "DIR"
    path: str
    image_size: ImageSize = None
    image_pixels: ImagePixels = PIXELS

    def images(self) -> Read[ImageSet]:
        """See `ImageSource`.

        Raises:
            InputError: folders are missing, empty or nested in another way, or see `read_images`.
        """
        root, size, limit = Path(self.path).expanduser(), self.image_size, self.image_pixels
        try:
            parts = _parts(root)
        except OSError as error:
            expected = f"a directory that can be read; {error}"
            raise InputError("data.source", str(self), expected) from None
        train, test = parts.train, parts.test
        named = dict.fromkeys(entry.file.relative_to(root).parent.as_posix() for entry in train)
        count = len(test) if parts.tests else None
        origin = announce("images", count, parts.tests, parts.unread, list(named))
        labels = sorted({entry.label for entry in (*train, *test)})
        domains = sorted({entry.domain or "" for entry in (*train, *test)})
        found = _read(train, labels, domains, size, limit)
        return Read(found, _read(test, labels, domains, size, limit) if test else None, origin)


def _read(
    entries: Sequence[Entry], labels: Sequence[str], domains: Sequence[str], size: int | None, limit: int
) -> ImageSet:
    files = [entry.file for entry in entries]
    images = read_images(files, lambda place: str(files[place]), size, limit)
    attributes = {"label": by_name([entry.label for entry in entries], labels)}
    if domains != [""]:
        attributes["domain"] = by_name([entry.domain or "" for entry in entries], domains)
    return ImageSet(images, attributes)


def _parts(root: Path) -> Parts:
    """Finds the images of a directory by part; the parts' folders are on its first or second level."""
    folders = _folders(root)
    if not any(map(_folders, folders)):
        return _labels(root, folders)
    own = divide([folder.name for folder in folders], f"images:{root}", free=True)
    if own.test or own.validation or any(parse(name).part == "train" for name in own.train):
        return _divided(root, {folder.name: folder for folder in folders})
    inner = [folder for outer in folders for folder in _folders(outer)]
    deep = [folder for folder in inner if _folders(folder)]
    if not deep and all(_is_part(folder) for folder in inner):
        return _divided_within(root, folders, labels=True)
    if any(parse(folder.name).part for folder in deep):
        return _divided_within(root, folders, labels=False)
    return Parts(_entries(root), [], [], [])


def _labels(root: Path, folders: Sequence[Path]) -> Parts:
    """Finds the images of a directory whose folders hold no folders and are therefore labels."""
    named = [folder.name for folder in folders if _is_part(folder)]
    if named and len(named) == len(folders):
        expected = f"folders by label; {listed(named)} hold images without any"
        raise InputError("data.source", f"images:{root}", expected)
    entries = _entries(root)
    if named:
        logger.info(f"{listed(named)}: a label, like the folders beside it, since it holds no folders")
    return Parts(entries, [], [], [])


def _divided(root: Path, folders: dict[str, Path]) -> Parts:
    """Finds the images of a directory whose folders are parts."""
    own = divide(list(folders), f"images:{root}", free=True)
    flat = [name for name in own.test if not _folders(folders[name])]
    tests = [name for name in own.test if name not in flat]
    found = Parts([], [], tests, [*own.validation, *own.others, *(f"{name} (no labels)" for name in flat)])
    for names, entries in ((own.train, found.train), (tests, found.test)):
        for name in names:
            said = parse(name)
            if said.part is None:
                entries += [entry for label in _folders(folders[name]) for entry in _images(label, name)]
                continue
            domain = " ".join(said.rest) or None
            inner = _entries(_innermost(folders[name]))
            entries += [Entry(entry.file, entry.label, entry.domain or domain) for entry in inner]
    return _with_training(root, found)


def _divided_within(root: Path, folders: Sequence[Path], *, labels: bool) -> Parts:
    """Finds the images of a directory whose folders are labels or domains and hold the parts' folders."""
    found = Parts([], [], [], [])
    for outer in folders:
        own = divide([folder.name for folder in _folders(outer)], f"images:{outer}")
        for names, entries in ((own.train, found.train), (own.test, found.test)):
            for name in names:
                if labels:
                    inner = [Entry(entry.file, outer.name, None) for entry in _images(outer / name, None)]
                else:
                    files = _entries(outer / name)
                    inner = [Entry(entry.file, entry.label, outer.name) for entry in files]
                entries += inner
        found.tests.extend(f"{outer.name}/{name}" for name in own.test)
        found.unread.extend(f"{outer.name}/{name}" for name in (*own.validation, *own.others))
    return _with_training(root, found)


def _is_part(folder: Path) -> bool:
    """Tells whether a folder's name says a part and has no other words."""
    said = parse(folder.name)
    return said.part is not None and not said.rest


def _innermost(part: Path) -> Path:
    """Returns a part's folder, or a lone folder of the same name in it, as in ``train/train/LABEL``."""
    inner = _folders(part)
    again = len(inner) == 1 and inner[0].name.lower() == part.name.lower() and bool(_folders(inner[0]))
    return inner[0] if again else part


def _with_training(root: Path, found: Parts) -> Parts:
    if not found.train:
        expected = f"images to train on beside {listed(found.tests or found.unread)}"
        raise InputError("data.source", f"images:{root}", expected)
    return found


def _entries(root: Path) -> list[Entry]:
    """Returns every image below a directory, sorted by domain, label and name."""
    folders = _folders(root)
    if not folders:
        raise InputError("data.source", f"images:{root}", "a folder for every label, or for every domain")
    nested = [bool(_folders(folder)) for folder in folders]
    if any(nested) and not all(nested):
        flat, deep = folders[nested.index(False)].name, folders[nested.index(True)].name
        expected = f"folders by label, or by domain and label; {deep} holds folders, {flat} does not"
        raise InputError("data.source", f"images:{root}", expected)
    if not any(nested):
        return [entry for folder in folders for entry in _images(folder, None)]
    return [
        entry for domain in folders for folder in _folders(domain) for entry in _images(folder, domain.name)
    ]


def _images(folder: Path, domain: str | None) -> list[Entry]:
    files = [file for file in reading.entries(folder) if file.suffix.lower() in ENDINGS]
    deeper = next((item for item in _folders(folder)), None)
    if deeper is not None:
        raise InputError("data.source", str(deeper), "images here, no folder within a label's folder")
    if not files:
        raise InputError(
            "data.source",
            str(folder),
            f"images in it ({', '.join(ENDINGS)})",
            "Remove the folder, or fill it.",
        )
    return [Entry(file, folder.name, domain) for file in files]


def _folders(folder: Path) -> list[Path]:
    return [item for item in reading.entries(folder) if item.is_dir()]
