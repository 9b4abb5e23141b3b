"""Image files of every supported kind become one array."""

import os
import zlib

import numpy as np
import pytest
from PIL import Image
from support.pictures import png

from fedtlu_fast import InputError
from fedtlu_fast.data import pixels
from fedtlu_fast.data.pixels import read_images, scale_all


def read(*files, size=None):
    return read_images(files, lambda place: f"file {place}", size)


@pytest.fixture
def rgb(generator):
    import torch

    return torch.randint(0, 256, (6, 5, 3), generator=generator, dtype=torch.uint8).numpy()


def test_colours_and_greys_keep_their_pixels(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.bmp")
    found = read(png(rgb), tmp_path / "a.bmp", str(tmp_path / "a.bmp"))
    assert (found.shape, found.dtype) == (((3, 3, 6, 5)), np.uint8)
    for image in found:
        assert (image == rgb.transpose(2, 0, 1)).all()
    grey = rgb[:, :, 0]
    assert (read(png(grey))[0, 0] == grey).all()


def test_greys_beside_colours_become_colours(rgb):
    grey = np.ascontiguousarray(rgb[:, :, 1])
    found = read(png(grey), png(rgb), png(grey))
    assert found.shape == (3, 3, 6, 5)
    assert (found[0] == grey).all()
    assert (found[1] == rgb.transpose(2, 0, 1)).all()


def test_sixteen_bits_become_eight():
    deep = np.array([[0, 257, 128 * 257], [65535, 65400, 300]], np.uint16)
    assert read(png(deep)).tolist() == [[[[0, 1, 128], [255, 254, 1]]]]
    with pytest.raises(InputError, match=r"file 0.*pixels of 8 or 16 bits; it holds -1 to 70000"):
        read(tiff(np.array([[-1, 70000]], np.int32)))


def tiff(image):
    import io

    content = io.BytesIO()
    Image.fromarray(image).save(content, "TIFF")
    return content.getvalue()


def test_transparent_pixels_become_white(rgb):
    clear = np.dstack([rgb, np.zeros_like(rgb[:, :, 0])])
    clear[0, 0, 3] = 255
    found = read(png(clear))[0]
    assert found.shape == (3, 6, 5)
    assert (found[:, 0, 0] == rgb[0, 0]).all()
    found[:, 0, 0] = 255
    assert (found == 255).all()
    grey = read(png(np.dstack([rgb[:, :, 0], np.zeros_like(rgb[:, :, 0])])))
    assert (grey.shape, int(grey.min())) == ((1, 1, 6, 5), 255)


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr"])
def test_other_kinds_of_pixels_are_converted(rgb, tmp_path, mode):
    image = Image.fromarray(rgb).convert(mode)
    image.save(tmp_path / "a.tiff")
    expected = np.asarray(Image.open(tmp_path / "a.tiff").convert("L" if mode == "1" else "RGB"))
    found = read(tmp_path / "a.tiff")[0]
    assert (found == np.atleast_3d(expected).transpose(2, 0, 1)).all()


def test_a_photograph_is_turned_as_its_camera_recorded(tmp_path):
    image = Image.fromarray(np.array([[0, 255]], np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "a.png", exif=exif)
    assert read(tmp_path / "a.png").tolist() == [[[[0], [255]]]]


def test_scaling_crops_the_longer_side_equally_at_both_ends():
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    assert (read(png(wide), size=4) == 200).all()
    assert read(png(wide), png(wide.T.copy()), size=2).shape == (2, 1, 2, 2)
    assert scale_all(read(png(wide)), 2).tolist() == read(png(wide), size=2).tolist()
    colours = read(png(np.dstack([wide, wide, wide])))
    assert (scale_all(colours, 4) == 200).all()
    assert scale_all(colours, None) is colours


def test_images_of_several_sizes_are_refused_without_a_size(rgb):
    with pytest.raises(InputError, match=r"data.image_size.*the first image is 5x6, file 1 is 2x3"):
        read(png(rgb), png(rgb[:3, :2].copy()))


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "text", "header"])
def test_a_damaged_file_is_named(rgb, damage, tmp_path):
    content = png(rgb)
    broken = {
        "cut": content[: len(content) // 2],
        "noise": content[:40] + bytes(20) + content[60:],
        "empty": b"",
        "text": b"no image at all",
        "header": content[:16] + b"\xff" * 8 + content[24:],
    }[damage]
    with pytest.raises(InputError, match=r"file 1'; expected an image that can be read; .+"):
        read(content, broken)
    with pytest.raises(InputError, match="expected an image that can be read"):
        read(tmp_path / "missing.png")


def test_only_named_formats_are_opened(tmp_path, monkeypatch):
    """Pillow would start Ghostscript for a PostScript file, whatever the file's name."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("a program was started"))
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"
    (tmp_path / "x.png").write_bytes(script)
    for file in (script, tmp_path / "x.png"):
        with pytest.raises(
            InputError, match=r"file 0'; expected an image that can be read; it is none of BMP, GIF"
        ):
            read(file)
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(InputError, match="an image that can be read; it is empty"):
        read(tmp_path / "x.png")


def test_floating_point_pixels_are_refused():
    with pytest.raises(InputError, match=r"pixels of 8 or 16 bits; these are floating-point numbers"):
        read(tiff(np.array([[0.25, 1.0]], np.float32)))


@pytest.mark.parametrize("side", [9, 2**16, 2**31 - 1])
def test_a_limit_of_pixels_counts_before_anything_is_unpacked(rgb, side):
    content = png(rgb)
    # PNG's header: the width at byte 16, the height at 20, a checksum of both at 29.
    head = content[12:16] + side.to_bytes(4, "big") * 2 + content[24:29]
    bomb = content[:12] + head + zlib.crc32(head).to_bytes(4, "big") + content[33:]
    with pytest.raises(
        InputError, match=r"file 0'; expected an image of at most 80 pixels, data.image_pixels"
    ):
        read_images([bomb], lambda place: f"file {place}", None, 80)
    assert read_images([content], lambda place: "whole", None, 30).shape == (1, 3, 6, 5)


def test_an_animation_gives_its_first_picture(rgb, tmp_path):
    pictures = [
        Image.fromarray(shade) for shade in (np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8))
    ]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:])
    assert read(tmp_path / "a.gif").max() == 0


def test_a_pipe_in_place_of_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="an image that can be read; there is no such file"):
        read(tmp_path / "a.png")


def test_more_images_than_memory_holds_are_refused_at_the_first(rgb, monkeypatch):
    monkeypatch.setattr(pixels, "free_bytes", lambda _: 400)
    read(png(rgb), png(rgb))
    with pytest.raises(InputError, match=r"data.image_size.*fit into memory"):
        read(*[png(rgb)] * 3)
