"""The stack of clients' vectors: rows and blocks, in memory and in a file, and stacks without room."""

import errno
import os
import subprocess
import sys
import tempfile

import pytest
import torch

from fedtlu_fast import InputError
from fedtlu_fast.aggregation import Median, check_room, room, stack_bytes
from fedtlu_fast.aggregation import stack as stack_module
from fedtlu_fast.aggregation.stack import Stack
from fedtlu_fast.config import AggregationConfig
from fedtlu_fast.machine import Room

STACKED = [
    {"rule": rule}
    for rule in (
        "median",
        "trimmed_mean",
        "krum",
        "multi_krum",
        "norm_clip",
        "geometric_median",
        "centered_clipping",
    )
]
STREAMED = [{"rule": "mean"}, {"rule": "norm_clip", "clip": 1.0}]


@pytest.mark.parametrize("spill", [False, True])
def test_rows_and_blocks_hold_the_added_vectors(generator, tmp_path, monkeypatch, spill):
    monkeypatch.setattr(stack_module, "BLOCK", 3 * 4)
    clients = torch.randn(3, 11, generator=generator)
    stack = Stack(torch.zeros(11), 5, str(tmp_path) if spill else None)
    assert len(stack) == 0
    for client in clients:
        vector = client.clone()
        stack.add_(vector)
        vector.fill_(7.0)  # it may be reused
    assert len(stack) == 3
    assert torch.equal(torch.stack([stack.row(place) for place in range(3)]), clients)
    found = list(stack.blocks())
    assert [columns.start for columns, _ in found] == [0, 4, 8]
    assert torch.equal(torch.cat([torch.stack(rows) for _, rows in found], dim=1), clients)
    some = [torch.stack(rows) for _, rows in stack.blocks([2, 0])]
    assert torch.equal(torch.cat(some, dim=1), clients[[2, 0]])
    assert list(tmp_path.iterdir()) == [], "the file has no name that could be left behind"


@pytest.mark.parametrize("settings", STACKED, ids=lambda settings: settings["rule"])
def test_a_stack_without_room_is_refused_before_the_first_round(monkeypatch, tmp_path, settings):
    monkeypatch.setattr(room, "memory_room", lambda: Room(1000, "are left"))
    assert stack_bytes(AggregationConfig(**settings).rule, 1000, 10) == 4 * 1000 * 10
    check_room(AggregationConfig(**settings).rule, 10, 10)
    with pytest.raises(InputError, match=r"room for 10 vectors of 1,000 numbers.*Set aggregation.spill"):
        check_room(AggregationConfig(**settings).rule, 1000, 10)
    check_room(AggregationConfig(**settings, spill=str(tmp_path)).rule, 1000, 10)
    with pytest.raises(InputError, match="of disk are free"):
        check_room(AggregationConfig(**settings, spill=str(tmp_path)).rule, 10**9, 10**9)
    with pytest.raises(InputError, match=r"aggregation\.spill.*a directory that exists"):
        check_room(AggregationConfig(**settings, spill=str(tmp_path / "no")).rule, 10, 10)


def test_a_spill_into_memory_needs_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(room, "memory_room", lambda: Room(1000, "are left"))
    monkeypatch.setattr(room, "lies_in_memory", lambda folder: True)
    settings = Median(str(tmp_path))
    check_room(settings, 10, 10)
    with pytest.raises(InputError, match=r"it lies in memory \(tmpfs\), and 0.00 GB are left"):
        check_room(settings, 1000, 10)


def test_a_spill_that_cannot_be_written_is_refused_before_the_first_round(monkeypatch, tmp_path):
    def refuse(**where):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"files can be made \(Read-only file system\)"):
        check_room(Median(str(tmp_path)), 10, 10)


FULL = """
import resource, torch
from fedtlu_fast.aggregation.stack import Stack
from fedtlu_fast.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    Stack(torch.zeros(2**18), 4, {folder!r}).add_(torch.zeros(2**18))
except StorageError as error:
    print(error)
"""


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path):
    """Runs in another process, with a limit on file sizes in place of a full disk; a bug would kill it."""
    code = FULL.format(folder=str(tmp_path))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "0.00 GB cannot be reserved there: File too large" in found.stdout
    assert "resume=True" in found.stdout


@pytest.mark.parametrize("how", ["posix_fallocate", "by writing"])
def test_blocks_are_reserved_before_the_file_is_mapped(monkeypatch, tmp_path, how):
    if how == "by writing":
        monkeypatch.delattr("os.posix_fallocate", raising=False)
    elif not hasattr(os, how):
        pytest.skip("not here")
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        stack_module._reserve(file, 3 * 2**20 + 5)
        found = os.fstat(file.fileno())
    assert found.st_size == 3 * 2**20 + 5
    assert 512 * found.st_blocks >= found.st_size


@pytest.mark.parametrize("settings", STREAMED, ids=lambda settings: settings["rule"])
def test_rules_that_stream_need_no_room(monkeypatch, settings):
    monkeypatch.setattr(room, "memory_room", lambda: Room(0, "are left"))
    assert stack_bytes(AggregationConfig(**settings).rule, 10**9, 10**6) == 0
    check_room(AggregationConfig(**settings).rule, 10**9, 10**6)
