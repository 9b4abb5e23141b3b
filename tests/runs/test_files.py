import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support.federations import snapshot

from fedtlu_fast.runs.files import (
    NotAFileError,
    append_to_file,
    file_sha256,
    read_file,
    storage_error,
    sync_file,
    write_file,
)


def _link(place: Path) -> None:
    place.symlink_to(place.parent.parent / "victim")


PLACES: dict[str, Callable[[Path], object]] = {
    "a symbolic link": _link,
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda place: place.symlink_to("/dev/zero"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.mark.parametrize("put", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize(
    "use", [read_file, file_sha256, sync_file, lambda path: append_to_file(path, b"more")]
)
def test_what_is_no_file_is_refused_without_waiting(
    folder: Path, put: Callable[[Path], object], use: Callable[[Path], object]
) -> None:
    put(folder / "file")
    with pytest.raises(NotAFileError, match=r"it is a (symbolic link|FIFO|folder), not a file"):
        use(folder / "file")
    assert (folder.parent / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["file", ".file.tmp"])
@pytest.mark.parametrize("put", [_link, os.mkfifo], ids=["a symbolic link", "a FIFO"])
def test_whole_file_takes_the_place_of_a_link_and_leaves_what_it_points_to(
    folder: Path, name: str, put: Callable[[Path], object]
) -> None:
    put(folder / name)
    write_file(folder, "file", b"new")
    assert snapshot(folder) == {"file": b"new"}
    assert stat.S_ISREG(os.lstat(folder / "file").st_mode)
    assert (folder.parent / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["file", ".file.tmp"])
def test_whole_file_does_not_take_the_place_of_a_folder(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    with pytest.raises(OSError, match="directory"):
        write_file(folder, "file", b"new")
    assert snapshot(folder) == {}


def test_the_advice_fits_what_went_wrong(folder: Path) -> None:
    full, elsewhere = OSError(errno.ENOSPC, "No space left"), OSError(errno.EROFS, "Read-only file system")
    assert "No space left. Everything" in str(storage_error(folder, full))
    assert "make room" in str(storage_error(folder, full))
    assert "put that right" in str(storage_error(folder, elsewhere))
    assert "make room" not in str(storage_error(folder, elsewhere))


def test_nothing_is_written_into_a_folder_that_is_a_link(folder: Path) -> None:
    (folder.parent / "outside").mkdir()
    (folder / "plots").symlink_to(folder.parent / "outside")
    with pytest.raises(NotAFileError, match="a symbolic link, not a folder"):
        write_file(folder, "plots/a.png", b"new")
    assert snapshot(folder.parent / "outside") == {}


def test_a_directory_that_the_user_made_a_link_is_followed(folder: Path) -> None:
    root = folder.parent / "runs"
    root.symlink_to(folder)
    write_file(root, "plots/a.png", b"new")
    append_to_file(root / "log", b"line")
    assert snapshot(folder) == {"plots/a.png": b"new", "log": b"line"}


def test_files_and_folders_have_the_permissions_that_the_umask_leaves(folder: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(folder, "plots/a.png", b"new")
        append_to_file(folder / "log", b"line")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert modes == {"plots": 0o750, "a.png": 0o640, "log": 0o640}


def test_directories_are_brought_to_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    write_file(folder / "a" / "b", "plots/file", b"new")
    places = [folder, folder / "a", folder / "a" / "b", folder / "a" / "b" / "plots"]
    assert set(map(str, places)) <= set(synced)
    assert synced[-1] == str(places[-1]), "after the rename"
