import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from fedtlu_fast.runs.files import NotAFileError
from fedtlu_fast.runs.lock import DirectoryLock


def test_a_second_thread_is_kept_out_until_the_first_lets_go(tmp_path: Path) -> None:
    first = DirectoryLock(tmp_path / ".lock")
    found: list[object] = []

    def second() -> None:
        try:
            found.append(DirectoryLock(tmp_path / ".lock"))
        except BlockingIOError as error:
            found.append(error)

    for expected in (BlockingIOError, DirectoryLock):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert isinstance(found[-1], expected)
        first.release()


def test_a_refused_attempt_does_not_give_the_lock_away(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path / ".lock")
    with pytest.raises(BlockingIOError):
        DirectoryLock(tmp_path / ".lock")
    child = os.fork()
    if not child:
        # Another process: what this one knows of its parent's locks does not count.
        try:
            DirectoryLock(tmp_path / ".lock")
        except BlockingIOError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    lock.release()


def test_a_lock_that_nobody_refers_to_is_free(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path / ".lock")
    del lock
    DirectoryLock(tmp_path / ".lock").release()


def test_another_name_of_the_directory_is_the_same_directory(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    lock = DirectoryLock(tmp_path / "a" / ".lock")
    with pytest.raises(BlockingIOError):
        DirectoryLock(tmp_path / "b" / ".lock")
    lock.release()


def test_a_link_in_its_place_is_refused_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(NotAFileError):
        DirectoryLock(tmp_path / ".lock")
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_file_system_that_cannot_lock_is_warned_of_once_and_threads_are_kept_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unable(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", unable)
    DirectoryLock(tmp_path / ".lock").release()
    lock = DirectoryLock(tmp_path / ".lock")
    assert caplog.text.count("this file system cannot lock") == 1
    with pytest.raises(BlockingIOError):
        DirectoryLock(tmp_path / ".lock")
    lock.release()
