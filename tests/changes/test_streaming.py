"""Tests that statistics of pieces, read from files of any dtype, are those of the whole change in float64."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fedtlu_fast import InputError
from fedtlu_fast.changes import score, stored, streaming
from fedtlu_fast.changes.memory import Memory
from fedtlu_fast.changes.pairing import Pair
from fedtlu_fast.ops import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
ODD = [math.nan, math.inf, -math.inf]


def cut(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    for module in (stored, streaming):
        monkeypatch.setattr(module, "PIECE", size)


def numbers(seed: int, count: int, spread: float, shift: float, dtype: torch.dtype) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return (torch.randn(count, generator=draws, dtype=torch.float64) * spread + shift).to(dtype)


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.sampled_from([0, 1, 2, 7, 8, 9, 63, 64, 65, 200]), min_size=1, max_size=4),
    piece=st.integers(1, 80),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    spread=st.sampled_from([0.0, 1e-6, 1.0, 100.0]),
    shift=st.sampled_from([0.0, 1e-3, -1.0, 300.0]),
    odd=st.lists(st.tuples(st.integers(0, 199), st.sampled_from(ODD)), max_size=2),
    seed=st.integers(0, 99),
)
@example([200], 7, (torch.float32, torch.float32), 0.0, 300.0, [], 0)
def test_pieces_of_any_size_give_the_moments_of_the_whole_change(
    counts, piece, dtypes, spread, shift, odd, seed
):
    olds = [numbers(seed + at, count, 1.0, 0.0, dtypes[0]) for at, count in enumerate(counts)]
    news = [
        (old.double() + numbers(seed + 50 + at, old.numel(), spread, shift, torch.float64)).to(dtypes[1])
        for at, old in enumerate(olds)
    ]
    for place, value in odd:
        if place < news[-1].numel():
            news[-1][place] = value
    sides = [
        Memory({str(at): own for at, own in enumerate(side)}).stored(field)
        for field, side in (("BEFORE", olds), ("AFTER", news))
    ]
    pairs = [Pair(name, name, (sides[0][name],), (sides[1][name],)) for name in sides[0]]
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, piece)
        found, weights = streaming.stats_of(pairs, "auto", weights=True)
    for stats, whole in (
        (found, [new.double() - old.double() for old, new in zip(olds, news, strict=True)]),
        (weights, [old.double() for old in olds]),
    ):
        expected = reference.layer_stats_list(whole)
        assert stats.count.equal(expected.count)
        assert stats.nonfinite.equal(expected.nonfinite)
        torch.testing.assert_close(stats.abs_max, expected.abs_max, rtol=0, atol=0, equal_nan=True)
        std = (expected.m2 / expected.count.clamp(min=1)).sqrt()
        scale = std + expected.mean.abs()
        torch.testing.assert_close(stats.std / scale, std / scale, rtol=0, atol=1e-12, equal_nan=True)
        regular = (std > 0) & torch.isfinite(std)
        ratio = (expected.mean / std)[regular]
        error = ((stats.mean / stats.std)[regular] - ratio).abs()
        # If all elements are nearly equal, their rounding decides about std in either way of summing.
        assert bool((error <= 1e-8 * ratio.abs().clamp(min=1) + 1e-15 * ratio.square()).all())
        l2 = (expected.m2 + expected.count * expected.mean.square()).sqrt()
        torch.testing.assert_close(stats.l2, l2, rtol=1e-12, atol=0, equal_nan=True)


def test_a_constant_change_has_no_spread_in_any_pieces(monkeypatch):
    cut(monkeypatch, 10)
    old = {"w": torch.arange(1001.0)}
    found = score(old, {"w": old["w"] + 0.5})
    assert (found.stats.mean.item(), found.stats.std.item()) == (0.5, 0.0)
    assert found.scores.degenerate.item()


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    cut(monkeypatch, 50)
    old = {f"h.{at}.w": numbers(at, 1000 + at, 1.0, 0.0, torch.bfloat16) for at in range(5)}
    new = {name: own + numbers(9, own.numel(), 0.1, 0.01, torch.float32) for name, own in old.items()}
    found = []
    for threads in (1, 2, 4):
        monkeypatch.setattr(streaming, "cores", lambda threads=threads: threads)
        before = torch.get_num_threads()
        found.append(score(old, new))
        assert torch.get_num_threads() == before
    for other in found[1:]:
        assert other.scores.excess.equal(found[0].scores.excess)
        assert other.stats.l2.equal(found[0].stats.l2)


def test_a_tensor_that_is_not_contiguous_is_read_in_its_own_order(monkeypatch):
    cut(monkeypatch, 4)
    old = torch.arange(30.0).view(5, 6)
    new = torch.arange(30.0).view(6, 5).t()
    found = score({"w": old}, {"w": new})
    expected = reference.layer_stats_list([new.double() - old.double()])
    assert found.stats.abs_max.equal(expected.abs_max)
    torch.testing.assert_close(found.stats.std, (expected.m2 / 30).sqrt())


def test_a_file_that_becomes_shorter_is_one_message(tmp_path, monkeypatch):
    paths = [tmp_path / f"{side}.safetensors" for side in ("before", "after")]
    for path in paths:
        save_file({"w": torch.arange(100_000.0)}, path)
    real = streaming.stats_of

    def shorter(*arguments, **options):
        with paths[1].open("rb+") as file:
            file.truncate(1000)
        return real(*arguments, **options)

    monkeypatch.setattr("fedtlu_fast.changes.scored.stats_of", shorter)
    with pytest.raises(InputError, match=r"AFTER: w: .*became shorter"):
        score(*paths)


PEAK = """
import sys
from pathlib import Path
def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if key in line).split()[1])
from fedtlu_fast import score
import torch
tiny = {"w": torch.ones(300_000)}
score(tiny, {"w": torch.arange(300_000.0)})  # the pieces' own memory
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
score(*sys.argv[1:3])
score(*sys.argv[3:5])
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_depends_neither_on_the_model_nor_on_its_largest_tensor(tmp_path):
    paths = []
    for kind in ("safetensors", "bin"):
        for place in range(2):
            content = {"w": torch.full((16_000_000,), 1.0 + place, dtype=torch.bfloat16)}
            content["w"][:7] = 0
            paths.append(tmp_path / f"{place}.{kind}")
            save_file(content, paths[-1]) if kind == "safetensors" else torch.save(content, paths[-1])
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, paths)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 40_000, f"{done.stdout} kB more for two files of 32 MB"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_files_are_closed_after_an_error(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(3)}, path)
    with pytest.raises(InputError):
        score(path, {"v": torch.ones(3)})
    kept = [os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert str(path) not in kept
