import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.federations import snapshot, tiny

from fedtlu_fast import InputError, RunConfig, StorageError
from fedtlu_fast.build.stored import read_stored
from fedtlu_fast.cli.resuming import resumed
from fedtlu_fast.experiments import comparison_settings as settings_module
from fedtlu_fast.experiments.comparison_settings import comparison_settings
from fedtlu_fast.runs import directory as directory_module
from fedtlu_fast.runs.as_json import dump_json, finite
from fedtlu_fast.runs.directory import LOGS, RunDirectory
from fedtlu_fast.runs.sealed import read_sealed_yaml


@pytest.fixture
def config(text: Path) -> RunConfig:
    return tiny(text)


@pytest.fixture
def run(config: RunConfig, tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "out", config.to_yaml())


def test_settings_come_back_as_they_were(config: RunConfig, run: RunDirectory) -> None:
    assert read_stored(run.path) == config
    assert yaml.safe_load((run.path / "config.yaml").read_text())["rounds"] == 5


@pytest.mark.parametrize("reader", [read_stored, resumed, comparison_settings], ids=lambda f: f.__name__)
def test_settings_are_those_whose_digest_was_checked(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable[..., Any]
) -> None:
    """Though somebody exchanges the file in the moment after the check."""
    arms = "selectors: [last]\nseeds: [0]\n" if reader is comparison_settings else ""
    out = RunDirectory.create(tmp_path / "out", config.to_yaml(), arms=arms).path

    def read_and_exchange(path: Path, what: str) -> str:
        text = read_sealed_yaml(path, what)
        path.write_text(path.read_text().replace("seed: 0", "seed: 7"))
        return text

    for module in (directory_module, settings_module):
        monkeypatch.setattr(module, "read_sealed_yaml", read_and_exchange)
    found = reader(out, []) if reader is resumed else reader(out)
    assert config in (found if isinstance(found, tuple) else (found,))


def test_parents_are_made(config: RunConfig, tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "a" / "b" / "c", config.to_yaml())
    assert (tmp_path / "a" / "b" / "c" / "config.yaml").exists()


def test_directory_left_by_a_kill_before_its_settings_can_be_used(config: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".config.yaml.tmp").write_text("rounds: ")
    (out / ".lock").touch()
    RunDirectory.create(out, config.to_yaml())
    assert read_stored(out) == config


@pytest.mark.parametrize("killed_before", ["config.yaml", "anything else"])
def test_comparison_killed_before_it_ran_anything_can_be_begun_anew(
    config: RunConfig, tmp_path: Path, killed_before: str
) -> None:
    out = tmp_path / "out"
    RunDirectory.create(out, config.to_yaml(), arms="selectors: [last]\n").close()
    if killed_before == "config.yaml":
        (out / "config.yaml").unlink()
        with pytest.raises(InputError, match=r"config\.yaml of an earlier run"):
            RunDirectory.open(out)
    other = config.model_copy(update={"seed": 5})
    RunDirectory.create(out, other.to_yaml()).close()
    assert read_stored(out) == other, "and nothing of the comparison is left"


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints", "notes.txt"])
def test_directory_with_anything_beside_its_settings_is_not_begun_anew(
    config: RunConfig, run: RunDirectory, name: str
) -> None:
    run.close()
    (run.path / name).mkdir()
    with pytest.raises(InputError, match="holds another run"):
        RunDirectory.create(run.path, config.to_yaml())


def test_settings_that_somebody_edited_are_not_overwritten(config: RunConfig, run: RunDirectory) -> None:
    run.close()
    file = run.path / "config.yaml"
    file.write_text(file.read_text().replace("seed: 0", "seed: 7"))
    before = snapshot(run.path)
    with pytest.raises(InputError, match="holds another run"):
        RunDirectory.create(run.path, config.to_yaml())
    with pytest.raises(InputError, match=r"config\.yaml: got 'a file that was changed since"):
        RunDirectory.open(run.path)
    assert snapshot(run.path) == before


def test_a_lock_that_is_a_link_is_refused_and_what_it_points_to_stays(
    run: RunDirectory, tmp_path: Path
) -> None:
    run.close()
    (tmp_path / "victim").write_text("precious")
    (run.path / ".lock").unlink()
    (run.path / ".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError, match="a symbolic link, not a file"):
        RunDirectory(run.path).lock()
    assert (tmp_path / "victim").read_text() == "precious"


def test_damaged_settings_are_one_clear_error(run: RunDirectory) -> None:
    (run.path / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="settings of this run as they were written"):
        RunDirectory.open(run.path)


def test_rows_come_back_in_order_and_a_cut_line_is_left_out(run: RunDirectory) -> None:
    for index in (1, 2, 3):
        run.append("metrics.jsonl", {"round": index, "loss": 0.1 * index})
    whole = run.rows("metrics.jsonl")
    assert whole == [{"round": index, "loss": 0.1 * index} for index in (1, 2, 3)]
    data = (run.path / "metrics.jsonl").read_bytes()
    start = data.rindex(b"{")
    for cut in range(start, len(data) - 1):
        (run.path / "metrics.jsonl").write_bytes(data[:cut])
        assert run.rows("metrics.jsonl") == whole[:2]
    assert run.rows("selection.jsonl") == []


def test_line_is_in_the_file_when_append_returns(run: RunDirectory) -> None:
    run.append("metrics.jsonl", {"round": 1})
    assert (run.path / "metrics.jsonl").read_bytes() == b'{"round": 1}\n'


def test_rewind_keeps_the_bytes_of_what_it_keeps(run: RunDirectory) -> None:
    kept = {}
    for index in range(1, 6):
        for log in LOGS:
            run.append(log, {"round": index, "value": math.pi * index, "text": "é", "none": math.nan})
            if index == 3:
                kept[log] = (run.path / log).read_bytes()
    run.rewind(3)
    assert {log: (run.path / log).read_bytes() for log in LOGS} == kept
    run.rewind(0)
    assert {(run.path / log).read_bytes() for log in LOGS} == {b""}


def test_rewind_beyond_the_logs_is_refused_and_changes_nothing(run: RunDirectory) -> None:
    for log in LOGS:
        run.append(log, {"round": 1})
    before = snapshot(run.path)
    with pytest.raises(InputError, match=r"metrics\.jsonl: got 'whole lines for 1 rounds'"):
        run.rewind(2)
    assert snapshot(run.path) == before


def test_failed_write_keeps_the_earlier_file_and_no_scrap(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write("summary.json", "old")
    before = snapshot(run.path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            StorageError, match=r"summary\.json could not be written: No space left on device"
        ):
            run.write("summary.json", "new")
        with pytest.raises(StorageError):
            run.sync()
    assert {name: data for name, data in snapshot(run.path).items() if data} == {
        name: data for name, data in before.items() if data
    }


def test_append_to_a_directory_that_was_removed_is_a_storage_error(run: RunDirectory) -> None:
    (run.path / "config.yaml").unlink()
    (run.path / ".lock").unlink()
    run.path.rmdir()
    with pytest.raises(StorageError, match=r"metrics\.jsonl"):
        run.append("metrics.jsonl", {"round": 1})


def test_json_has_no_nan_and_no_infinity() -> None:
    value = {"a": [math.nan, (math.inf, 1.5)], "b": -math.inf, "c": "NaN", "d": True, "e": None}
    assert finite(value) == {"a": [None, [None, 1.5]], "b": None, "c": "NaN", "d": True, "e": None}
    assert json.loads(dump_json(value)) == finite(value)
    assert finite(finite(value)) == finite(value)


def test_floats_survive_the_log_to_the_last_bit(run: RunDirectory) -> None:
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0]
    run.append("metrics.jsonl", {"round": 1, "values": values})
    assert list(map(repr, run.rows("metrics.jsonl")[0]["values"])) == list(map(repr, values))
