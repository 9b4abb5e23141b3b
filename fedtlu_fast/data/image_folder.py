"""Images in folders by label, and by domain before it, as DomainNet's (Peng et al., ICCV 2019) are.

``DIR/LABEL/*`` or ``DIR/DOMAIN/LABEL/*``, both also below ``DIR/train`` and ``DIR/test``. Names that begin
with a point are left out, and so are files with endings that are not images'. Links are followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtlu_fast.data.image_set import ImageSet, Splits
from fedtlu_fast.data.labelled import by_name
from fedtlu_fast.data.pixels import read_images
from fedtlu_fast.errors import InputError

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Entry:
    """An image's file, and the names of the folders that it is in."""

    file: Path
    label: str
    domain: str | None


def load_image_folder(location: str, size: int | None) -> Splits:
    """Images to train on, and those of the folder ``test`` where there is one beside ``train``.

    Args:
        location: the directory.
        size: see `read_images`.

    Raises:
        InputError: folders that are missing, empty, or nested otherwise; or see `read_images`.
    """
    root = Path(location).expanduser()
    try:
        folders = _folders(root)
        if [folder.name for folder in folders] == ["test", "train"]:
            test, train = (_entries(folder) for folder in folders)
        else:
            train, test = _entries(root), []
    except OSError as error:
        raise InputError(
            "data.source", f"images:{location}", f"a directory that can be read; {error}"
        ) from None
    labels = sorted({entry.label for entry in (*train, *test)})
    domains = sorted({entry.domain or "" for entry in (*train, *test)})
    found = _read(root, train, labels, domains, size)
    return found, _read(root, test, labels, domains, size) if test else None


def _read(
    root: Path, entries: Sequence[Entry], labels: Sequence[str], domains: Sequence[str], size: int | None
) -> ImageSet:
    images = read_images([entry.file for entry in entries], lambda place: str(entries[place].file), size)
    attributes = {"label": by_name([entry.label for entry in entries], labels)}
    if domains != [""]:
        attributes["domain"] = by_name([entry.domain or "" for entry in entries], domains)
    return ImageSet(images, attributes)


def _entries(root: Path) -> list[Entry]:
    """Every image below a directory, by domain, label and name."""
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
    files = [file for file in _visible(folder) if file.suffix.lower() in ENDINGS]
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
    return [item for item in _visible(folder) if item.is_dir()]


def _visible(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if not item.name.startswith("."))
