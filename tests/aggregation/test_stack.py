"""The stack of clients' vectors: what comes back, in memory and from a file, and what has no room."""

import pytest
import torch

from fedtlu_fast import InputError
from fedtlu_fast.aggregation import check_room, stack_bytes
from fedtlu_fast.aggregation import stack as stack_module
from fedtlu_fast.aggregation.stack import Stack
from fedtlu_fast.config import AggregationConfig

STACKED = [{"rule": rule} for rule in ("median", "trimmed_mean", "krum", "multi_krum", "norm_clip")]
STREAMED = [{"rule": "mean"}, {"rule": "norm_clip", "clip": 1.0}]


@pytest.mark.parametrize("spill", [False, True])
def test_rows_and_blocks_are_what_was_added(generator, tmp_path, monkeypatch, spill):
    monkeypatch.setattr(stack_module, "COLUMNS", 4)
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
    assert torch.equal(torch.cat([block for _, block in found], dim=1), clients)
    assert list(tmp_path.iterdir()) == [], "the file has no name that could be left behind"


@pytest.mark.parametrize("settings", STACKED, ids=lambda settings: settings["rule"])
def test_what_does_not_fit_is_refused_before_the_first_round(monkeypatch, tmp_path, settings):
    monkeypatch.setattr(stack_module, "free_bytes", lambda device: 1000)
    assert stack_bytes(AggregationConfig(**settings), 1000, 10) == 4 * 1000 * 10
    check_room(AggregationConfig(**settings), 10, 10)
    with pytest.raises(InputError, match=r"room for 10 vectors of 1,000 numbers.*Set aggregation.spill"):
        check_room(AggregationConfig(**settings), 1000, 10)
    check_room(AggregationConfig(**settings, spill=str(tmp_path)), 1000, 10)
    with pytest.raises(InputError, match="of disk are free"):
        check_room(AggregationConfig(**settings, spill=str(tmp_path)), 10**9, 10**9)
    with pytest.raises(InputError, match=r"aggregation\.spill.*a directory that exists"):
        check_room(AggregationConfig(**settings, spill=str(tmp_path / "no")), 10, 10)


@pytest.mark.parametrize("settings", STREAMED, ids=lambda settings: settings["rule"])
def test_rules_that_stream_need_no_room(monkeypatch, settings):
    monkeypatch.setattr(stack_module, "free_bytes", lambda device: 0)
    assert stack_bytes(AggregationConfig(**settings), 10**9, 10**6) == 0
    check_room(AggregationConfig(**settings), 10**9, 10**6)
