"""Small images of different shapes, as arrays and as files."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SHAPES = ("bar", "cross", "dot")


def picture(shape: str, draws: np.random.Generator, size: int = 8) -> np.ndarray:
    """Returns [size, size, 3] uint8, a light shape on dark noise."""
    image = draws.integers(0, 90, (size, size, 3), dtype=np.uint8)
    middle = slice(size // 2 - 1, size // 2 + 1)
    if shape in ("bar", "cross"):
        image[middle] = 220
    if shape == "cross":
        image[:, middle] = 220
    if shape == "dot":
        image[middle, middle] = 255
    return image


def write_folder(root: Path, domains=("ink", "oil"), each: int = 12, size: int = 8, seed: int = 3) -> Path:
    """Writes ROOT/DOMAIN/SHAPE/*.png, or ROOT/SHAPE/*.png without domains."""
    draws = np.random.default_rng(seed)
    for domain in domains or ("",):
        for shape in SHAPES:
            folder = root / domain / shape
            folder.mkdir(parents=True)
            for number in range(each):
                Image.fromarray(picture(shape, draws, size)).save(folder / f"{number:03}.png")
    return root


def png(image: np.ndarray) -> bytes:
    """Returns the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def cifar_rows(label_columns: list[np.ndarray], seed: int = 0) -> tuple[bytes, np.ndarray]:
    """Returns a batch of CIFAR's binary version, and its images [N, 3, 32, 32]."""
    images = np.random.default_rng(seed).integers(0, 256, (len(label_columns[0]), 3, 32, 32), dtype=np.uint8)
    columns = [column.astype(np.uint8)[:, None] for column in label_columns]
    return np.concatenate([*columns, images.reshape(len(images), -1)], axis=1).tobytes(), images


def write_archive(path: Path, files: dict[str, bytes], folder: str = "cifar-10-batches-bin") -> Path:
    """Writes a .tar.gz of files in a folder, like CIFAR's archive."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
