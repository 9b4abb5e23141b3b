"""Reads image files of any supported format and colour space as one array."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fedtlu_fast.data.image_set import PIXELS, Pixels
from fedtlu_fast.errors import InputError
from fedtlu_fast.memory import free_bytes

DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's names for 16 bits a pixel; ``I`` holds 32, of which image files use 16."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The only formats that are opened, whatever the file's name: for PostScript, Pillow starts Ghostscript."""


def read_images(
    files: Sequence[Path | str | bytes], name: Callable[[int], str], size: int | None, limit: int = PIXELS
) -> Pixels:
    """Reads images as one array, greyscale if all images are, otherwise RGB.

    Transparent pixels become white, 16 bits become 8 bits, palettes and other colour spaces become RGB.
    Photographs are turned upright by the orientation that the camera recorded. An animation gives its first
    picture.

    Args:
        files: [N], paths, or the files' contents.
        name: returns the name of the file at a place, for messages.
        size: side of a square, in pixels, to which images are scaled after their longer side is cropped
            equally at both ends; None: images keep their size.
        limit: largest number of pixels of one file; a small file can claim to hold billions.

    Returns:
        [N, C, H, W] uint8.

    Raises:
        InputError: a file is not an image of the `FORMATS`, is damaged, or exceeds the limit; the images have
            several sizes and `size` is None; or they do not fit into memory.
    """
    found: list[Pixels] = []
    for place, file in enumerate(files):
        image = _scaled(_read(file, name(place), limit), size)
        found.append(image)
        if image.shape[1:] != found[0].shape[1:]:
            sizes = [f"{part.shape[2]}x{part.shape[1]}" for part in (found[0], image)]
            expected = f"a number of pixels: the first image is {sizes[0]}, {name(place)} is {sizes[1]}"
            raise InputError("data.image_size", size, expected)
        if place == 0:
            _check_memory(len(files) * image.nbytes, size)
    channels = max(len(image) for image in found)
    stacked = np.empty((len(found), channels, *found[0].shape[1:]), np.uint8)
    for place, image in enumerate(found):
        stacked[place] = image  # broadcasts a greyscale image to every channel
    return stacked


def scale_all(images: Pixels, size: int | None) -> Pixels:
    """Returns images [N, C, H, W] uint8 that are already in memory, scaled as `read_images` does."""
    if size is None or images.shape[2:] == (size, size):
        return images
    return np.stack([_scaled(_as_image(image), size) for image in images])


def _read(file: Path | str | bytes, name: str, limit: int) -> Image.Image:
    try:
        if not isinstance(file, bytes) and not Path(file).is_file():
            raise FileNotFoundError(
                "there is no such file"
            )  # also for a pipe, where reading could wait forever
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `limit` decides
            opened = Image.open(BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS)
        with opened as image:
            _check_pixels(image.size, name, limit)
            upright = ImageOps.exif_transpose(image)
            if upright.mode in DEEP:
                return _eight_bits(upright, name)
            if upright.mode == "F":
                expected = (
                    "pixels of 8 or 16 bits; these are floating-point numbers, whose white nobody knows"
                )
                raise InputError("data.source", name, expected, "Scale them to 0 to 255 and save 8 bits.")
            if upright.has_transparency_data:
                layers = upright.convert("RGBA")
                white = Image.new("RGBA", layers.size, "white")
                return Image.alpha_composite(white, layers).convert("L" if "L" in upright.mode else "RGB")
            return upright.convert("L" if upright.mode in ("1", "L") else "RGB")
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many(name, limit, str(error)) from None
    except UnidentifiedImageError:
        held = (
            "it is empty"
            if not file or (not isinstance(file, bytes) and not Path(file).stat().st_size)
            else ""
        )
        expected = f"an image that can be read; {held or 'it is none of ' + ', '.join(FORMATS)}"
        raise InputError("data.source", name, expected) from None
    except Exception as error:  # Pillow's decoders raise errors of any type for damaged files
        raise InputError(
            "data.source", name, f"an image that can be read; {error or type(error).__name__}"
        ) from None


def _check_pixels(sides: tuple[int, int], name: str, limit: int) -> None:
    if sides[0] * sides[1] > limit:
        raise _too_many(name, limit, f"it says that it holds {sides[0]} x {sides[1]}")


def _too_many(name: str, limit: int, reason: str) -> InputError:
    expected = f"an image of at most {limit:,} pixels, data.image_pixels; {reason}"
    return InputError("data.source", name, expected, "Set data.image_pixels if you trust the file.")


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    deep = np.asarray(image).astype(np.int64)
    if not 0 <= deep.min() <= deep.max() < 2**16:
        raise InputError(
            "data.source", name, f"pixels of 8 or 16 bits; it holds {deep.min()} to {deep.max()}"
        )
    return Image.fromarray(np.rint(deep / 257).astype(np.uint8))


def _scaled(image: Image.Image, size: int | None) -> Pixels:
    """Returns the image as an array [C, H, W] uint8, scaled to `size`."""
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _as_image(image: Pixels) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def _check_memory(needed: int, size: int | None) -> None:
    # The factor 2: the images are held one by one as they are read, and once more in the stacked array.
    if 2 * needed > free_bytes("cpu"):
        expected = f"images that fit into memory; these take {2 * needed / 2**30:.1f} GiB while they are read"
        raise InputError("data.image_size", size, expected, "Use a smaller size.")
