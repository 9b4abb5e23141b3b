"""Weights & Biases writes, offline, what the run's own files hold."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.federations import tiny
from support.tracking import killed_and_resumed, numbers

from fedtlu_fast import simulate
from fedtlu_fast.integrations.trackers import Track, WeightsAndBiases

pytest.importorskip("wandb")

BLOCK = 32768


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    import wandb

    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "WANDB_CACHE_DIR": str(tmp_path / "cache"),
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
        "WANDB_DATA_DIR": str(tmp_path / "data"),
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_DISABLE_GIT": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield tmp_path / "wandb"
    wandb.teardown()


def records(path: Path) -> Iterator[Any]:
    """Reads wandb's file: a head of 7 bytes, then LevelDB's log format, whose records may be in pieces."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, held = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:  # no head fits into the rest of a block
            place += BLOCK - place % BLOCK
        _, size, kind = struct.unpack_from("<IHB", data, place)
        held += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or its last piece
            yield Record.FromString(held)
            held = b""


def named(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_records_hold_every_round_with_one_id_over_a_kill(text: Path, tmp_path: Path, offline: Path) -> None:
    result = killed_and_resumed(tiny(text), tmp_path / "out", WeightsAndBiases("mine"))
    folders = sorted(offline.glob("offline-run-*"))
    assert len(folders) == 2
    found: dict[str, dict[int, Any]] = {}
    ids, summary = set(), {}
    for folder in folders:
        (path,) = folder.glob("*.wandb")
        for record in records(path):
            if record.HasField("history"):
                row = named(record.history.item)
                step = row.pop("_step")
                for name, value in row.items():
                    found.setdefault(name, {})[step] = value
            elif record.HasField("run"):
                ids.add(record.run.run_id)
                assert (record.run.project, record.run.display_name) == ("mine", "out")
                if record.run.config.update:
                    assert named(record.run.config.update)["training.lr"] == 0.5
            elif record.HasField("summary"):
                summary |= named(record.summary.update)
    assert len(ids) == 1
    held = {name: list(values.items()) for name, values in found.items()}
    for name, values in numbers(result).items():
        if name.startswith("summary/"):
            assert summary[name] == values[0][1]
        else:
            assert held[name] == values


def test_two_runs_of_one_process_stay_apart(text: Path, tmp_path: Path, offline: Path) -> None:
    for name in ("one", "two"):
        simulate(tiny(text, rounds=1), tmp_path / name, callbacks=[Track("wandb")])
    names = set()
    for path in offline.glob("offline-run-*/*.wandb"):
        names |= {record.run.display_name for record in records(path) if record.HasField("run")}
    assert names == {"one", "two"}
