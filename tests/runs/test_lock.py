import errno
import fcntl
import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedtlu_fast.runs.files import NotAFileError
from fedtlu_fast.runs.lock import DirectoryLock, holder_of


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


HOLD = (
    "import pathlib, sys, time\n"
    "from fedtlu_fast.runs.lock import DirectoryLock\n"
    "lock = DirectoryLock(pathlib.Path(sys.argv[1]))\n"
    "print('held', flush=True)\n"
    "sys.stdin.read()\n"
)


def hold(path: Path) -> "subprocess.Popen[str]":
    """Starts a process that holds the lock until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_others_see_who_holds_a_lock_and_do_not_disturb_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    assert holder_of(path) is None
    process = hold(path)
    holder = holder_of(path)
    assert holder is not None
    assert (holder.pid, holder.host, holder.alive) == (process.pid, platform.node(), True)
    with pytest.raises(BlockingIOError):
        DirectoryLock(path)  # to look at it did not take it, nor give it away
    process.communicate("")
    assert holder_of(path) is None, "it gave the lock up"


def test_a_killed_holder_is_told_from_one_that_ended(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    process = hold(path)
    process.kill()
    process.wait()
    holder = holder_of(path)
    assert holder is not None
    assert (holder.pid, holder.alive) == (process.pid, False)
    DirectoryLock(path).release()
    assert holder_of(path) is None


def test_to_look_at_an_own_lock_keeps_it_and_a_forked_child_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    lock = DirectoryLock(path)
    child = os.fork()
    if not child:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert holder_of(path) == lock.holder
    script = (
        "import pathlib, sys; from fedtlu_fast.runs.lock import holder_of\n"
        "print(holder_of(pathlib.Path(sys.argv[1])))"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert f"pid={os.getpid()}" in said.stdout
    assert "alive=True" in said.stdout
    lock.release()


def test_where_nothing_can_be_locked_the_process_itself_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "fcntl", unable)
    path = tmp_path / ".lock"
    for pid, host, alive in (
        (os.getppid(), platform.node(), True),
        (2**22 + 1, platform.node(), False),  # larger than any process id
        (os.getppid(), "elsewhere", None),
    ):
        path.write_text(json.dumps({"pid": pid, "host": host, "began": 1.0}))
        holder = holder_of(path)
        assert holder is not None
        assert holder.alive is alive


def test_a_process_that_ends_with_an_error_was_not_killed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    script = (
        "import pathlib, sys\n"
        "from fedtlu_fast.runs.lock import DirectoryLock\n"
        "sys.lock = DirectoryLock(pathlib.Path(sys.argv[1]))\n"
        "raise ValueError\n"
    )
    assert (
        subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, check=False).returncode
        == 1
    )
    assert holder_of(path) is None
