"""The tensors of `LayerStats` are made when one is first read: nobody may notice, but for the time."""

from __future__ import annotations

import copy
import pickle
import threading
from dataclasses import FrozenInstanceError, astuple, fields, replace

import pytest
import torch
from support.model_zoo import gpt2
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fedtlu_fast import LayerStats, ParameterLayout, layer_stats, score_layers
from fedtlu_fast.scoring.statistics import unread

NUMBERS = ("count", "mean", "std", "l2", "abs_max", "nonfinite")


@pytest.fixture
def layout() -> ParameterLayout:
    return ParameterLayout.from_module(gpt2(layers=1, width=8))


@pytest.fixture
def late(layout: ParameterLayout, generator: torch.Generator) -> LayerStats:
    found = layer_stats(torch.randn(layout.size, generator=generator) + 0.1, layout)
    assert unread(found) is not None
    return found


def read(stats: LayerStats) -> LayerStats:
    """Returns the same statistics, made with all their tensors."""
    return LayerStats(stats.names, *(getattr(stats, name) for name in NUMBERS))


def assert_same(one: LayerStats, other: LayerStats) -> None:
    assert one.names == other.names
    for name in NUMBERS:
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("name", NUMBERS)
def test_reading_one_makes_all(late: LayerStats, name: str) -> None:
    first = getattr(late, name)
    assert unread(late) is None
    assert getattr(late, name) is first
    assert list(vars(late)) == [field.name for field in fields(late)]
    assert first.dtype is torch.float64
    assert first.shape == (len(late),)


def test_it_is_the_dataclass_that_it_was(late: LayerStats) -> None:
    again = copy.copy(late), copy.deepcopy(late), pickle.loads(pickle.dumps(late))  # noqa: S301
    made = read(late)
    for one in (*again, replace(late), late.cpu(), late.as_row().row(0)):
        assert_same(one, made)
    assert repr(late) == repr(made)
    assert late == made
    assert hash(late) == hash(made)
    assert [type(each) for each in astuple(late)] == [tuple, *[Tensor] * 6]


def test_it_cannot_be_changed_and_knows_no_other_name(late: LayerStats) -> None:
    with pytest.raises(FrozenInstanceError):
        late.mean = torch.zeros(3)  # type: ignore[misc]
    with pytest.raises(AttributeError, match="'LayerStats' object has no attribute 'variance'"):
        late.variance  # noqa: B018
    assert unread(late) is not None


def test_every_statistic_counts_its_own_changes_as_before(late: LayerStats) -> None:
    late.std.add_(1)
    assert late.std._version == 1
    assert late.l2._version == 0


def test_scores_of_unread_statistics_have_the_same_bits(late: LayerStats) -> None:
    for ddof in (0, 1):
        quick = score_layers(late, ddof)
        assert unread(late) is not None
        slow = score_layers(read(copy.copy(late)), ddof)
        for name in ("score", "excess", "degenerate"):
            assert torch.equal(getattr(quick, name), getattr(slow, name)), name


def test_scores_follow_a_statistic_that_was_changed(late: LayerStats) -> None:
    late.mean.zero_()
    assert not score_layers(late).excess.any()


def test_the_modes_of_the_reader_do_not_matter(late: LayerStats) -> None:
    weights = torch.ones(len(late), dtype=torch.float64, requires_grad=True)
    expected = read(copy.copy(late))
    with torch.inference_mode():
        late.std  # noqa: B018
    (late.std * weights).sum().backward()  # an inference tensor could not be saved for this
    assert_same(late, expected)
    inside = LayerStats.from_moments(late.names, unread(layer_stats([torch.ones(3)] * len(late))))
    with FakeTensorMode():
        inside.l2  # noqa: B018
    assert inside.l2.tolist() == pytest.approx([3**0.5] * len(late))


def test_compiled_code_reads_them(layout: ParameterLayout, late: LayerStats) -> None:
    expected = read(copy.copy(late)).std * 2
    compiled = torch.compile(lambda stats: stats.std * 2, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(late), expected)


def test_threads_that_read_together_get_the_same_tensors(layout: ParameterLayout) -> None:
    for _ in range(50):
        stats, found = layer_stats(torch.ones(layout.size), layout), []
        gate = threading.Barrier(4)

        def look(
            stats: LayerStats = stats, found: list[Tensor] = found, gate: threading.Barrier = gate
        ) -> None:
            gate.wait()
            found.append(stats.std)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len({id(each) for each in found}) == 1
