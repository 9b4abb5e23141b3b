"""Tests that `auto` measures a job once, and again wherever the answer is lost."""

import os
import sys
import threading

import pytest

from fedtlu_fast.build.executor import choose
from fedtlu_fast.build.measured import DAYS, remember, remembered
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.config.settings import parse_config

# The package exports the function of the same name.
executor_module = sys.modules["fedtlu_fast.build.executor"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDTLU_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def calls(monkeypatch):
    """Counts the measurements; each says another number of seconds."""
    found = []

    def fake(call, scale, is_clear):
        call()
        found.append(len(found) + 1.0)
        return found[-1]

    monkeypatch.setattr(executor_module, "_timed", fake)
    return found


def note(**over):
    config = parse_config(
        {
            "task": "classification",
            "clients": 12,
            "cohort": 4,
            "data": {"source": "synthetic", "classes": 4, "synthetic": {"features": 6}},
            "model": {"hidden": [5]},
            "execution": {"executor": "auto"},
            **over,
        }
    )
    parts = make_parts(config)
    return choose(config, parts.population, parts.trainer, parts.steps)[1]


def test_the_same_job_is_measured_once_and_another_one_anew(folder, calls):
    assert "; measured: " in note()
    assert "; measured before: 250 ms" in note()
    assert "; measured before: 250 ms" in note(rounds=7), "the number of rounds does not change a client"
    assert len(calls) == 1
    assert "; measured: " in note(training={"local_steps": 9})
    assert "; measured: " in note(seed=5)
    assert len(calls) == 3
    assert len(list(folder.iterdir())) == 3


def test_what_is_damaged_is_measured_again(folder, calls):
    note()
    (path,) = folder.iterdir()
    for damage in ("", "{", "-1.0", "NaN", "[1.0]", "1e999", "\x00", '"1"', "0.0", "null"):
        path.write_text(damage)
        assert remembered(path) is None
    path.write_bytes(b"\xff\xfe")
    assert "; measured: " in note()
    assert "; measured before: " in note()


def test_what_is_old_is_measured_again(folder, calls):
    note()
    (path,) = folder.iterdir()
    then = path.stat().st_mtime - DAYS * 24 * 3600 - 1
    os.utime(path, (then, then))
    assert "; measured: " in note()
    assert "; measured before: " in note()


@pytest.mark.parametrize("place", [os.devnull, "/proc/1/cache"])
def test_where_nothing_can_be_kept_every_run_measures(monkeypatch, calls, place):
    monkeypatch.setenv("FEDTLU_CACHE", place)
    assert [("; measured: " in note()) for _ in range(2)] == [True, True]


def test_readers_never_see_half_a_file(tmp_path):
    path, stop, wrong = tmp_path / "seconds", threading.Event(), []

    def write(seconds):
        while not stop.is_set():
            remember(path, seconds)

    remember(path, 0.25)
    writers = [threading.Thread(target=write, args=(number,)) for number in (0.25, 1 / 3)]
    for writer in writers:
        writer.start()
    wrong = [seconds for _ in range(500) if (seconds := remembered(path)) not in (0.25, 1 / 3)]
    stop.set()
    for writer in writers:
        writer.join()
    assert not wrong
    assert [one.name for one in tmp_path.iterdir()] == ["seconds"]
