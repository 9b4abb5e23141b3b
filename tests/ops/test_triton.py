"""Tests the Triton kernels: tiles, masks, alignment, the table's cache, launch constants.

Without a GPU they run in Triton's interpreter, which is slow: here tiles have a few dozen elements, so that
short layers cross many of their borders.
"""

import math
import os
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support import oracle
from support.sampling import examples

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from fedtlu_fast.errors import BackendUnavailableError  # noqa: E402
from fedtlu_fast.kernels import (  # noqa: E402
    accumulate,
    aggregate,
    anchored,
    clients,
    layer_stats,
    masked_apply,
    merge,
    pairs,
    tiles,
)
from fedtlu_fast.ops import reference  # noqa: E402
from fedtlu_fast.ops import triton as ops  # noqa: E402
from fedtlu_fast.ops.checks import TARGETS  # noqa: E402
from fedtlu_fast.ops.moments import Moments  # noqa: E402

pytestmark = [
    pytest.mark.skipif(DEVICE not in ops.devices(), reason=f"Triton is not live on {DEVICE}"),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),  # the interpreter's NumPy
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
UPDATE_DTYPES = (torch.float32, torch.float64)
TILE_BYTES = 512  # 128 float32, 64 float64, 256 of the 16-bit types
STEP_BYTES = 128
ids = str


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Sets short tiles and steps, and sums in float64, as the reference's; empties the cache of tables."""
    monkeypatch.setenv(pairs.VARIABLE, "float64")
    monkeypatch.setattr(tiles, "TILE_BYTES", TILE_BYTES)
    monkeypatch.setattr(tiles, "_cache", type(tiles._cache)(maxlen=tiles.CACHED_TABLES))
    monkeypatch.setattr(layer_stats, "ROWS", 2)
    monkeypatch.setattr(layer_stats, "ROW_BYTES", STEP_BYTES // 2)
    monkeypatch.setattr(merge, "MERGE_LANES", dict.fromkeys((False, True), (1, 2, 4)))
    monkeypatch.setattr(masked_apply, "BLOCK_BYTES", STEP_BYTES)
    monkeypatch.setattr(accumulate, "BLOCK", 64)
    monkeypatch.setattr(accumulate, "MOMENTS_BLOCK", 64)
    monkeypatch.setattr(aggregate, "BLOCK", 64)
    monkeypatch.setattr(aggregate, "BLOCK_WITH_CLIENTS", 64)
    monkeypatch.setattr(anchored, "THREADS", tl.constexpr(4))
    monkeypatch.setattr(clients, "_cache", type(clients._cache)(maxlen=clients.CACHED_TABLES))


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Fills fresh memory with NaN, so that a test fails if a kernel leaves memory unwritten."""
    empty, new_empty = torch.empty, torch.Tensor.new_empty

    def poisoned(make):
        def call(*args, **kwargs):
            tensor = make(*args, **kwargs)
            return tensor.fill_(math.nan) if tensor.is_floating_point() else tensor

        return call

    monkeypatch.setattr(torch, "empty", poisoned(empty))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(new_empty))


def offsets_of(*lengths, start=0):
    return torch.tensor([start, *lengths]).cumsum(0)


def normal(size, dtype=torch.float32, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(size, generator=generator, dtype=torch.float64) * scale + shift
    return values.to(dtype).to(DEVICE)


def assert_close(got: Moments, expected: Moments):
    """Checks mean/std within 1e-8 (+ 1e-13 of itself), and that exact columns and zeros of m2 are equal."""
    columns = {name: getattr(got, name).cpu() for name in Moments.NAMES}
    truth = {name: getattr(expected, name).cpu() for name in Moments.NAMES}
    for name in ("count", "abs_max", "nonfinite"):
        torch.testing.assert_close(columns[name], truth[name], rtol=0, atol=0, equal_nan=True)
    flat = truth["m2"] == 0
    assert columns["m2"][flat].eq(0).all()
    # Not of a constant layer alone: of float64 near 1e-308 the squares vanish, and the mean may round.
    torch.testing.assert_close(columns["mean"][flat], truth["mean"][flat], rtol=1e-15, atol=1e-300)
    torch.testing.assert_close(columns["m2"], truth["m2"], rtol=1e-10, atol=1e-300, equal_nan=True)
    ratio, true_ratio = (
        (part["mean"] / (part["m2"] / part["count"]).sqrt())[~flat] for part in (columns, truth)
    )
    torch.testing.assert_close(ratio, true_ratio, rtol=1e-13, atol=1e-8, equal_nan=True)


def assert_same_bits(got, expected):
    integer = torch.int32 if got.dtype == torch.float32 else torch.int64
    assert torch.equal(got.view(integer), expected.view(integer))


# --- layer_stats ---------------------------------------------------------------------------------


@pytest.mark.sweep(quick=3)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("start", [0, 3], ids=lambda start: f"start{start}")
def test_layers_around_every_border(dtype, start):
    tile = TILE_BYTES // dtype.itemsize
    step = STEP_BYTES // dtype.itemsize
    near = [border + extra for border in (step, tile, 2 * tile) for extra in (-1, 0, 1)]
    offsets = offsets_of(
        0, 1, 0, 4, *near, 5 * tile + 7, 0, start=start
    )  # more than 4 tiles: two merge steps
    # What lies outside the layers must not leak in.
    delta = torch.full((int(offsets[-1]) + 9,), math.nan, dtype=dtype, device=DEVICE)
    delta[start : offsets[-1]] = normal(int(offsets[-1]) - start, dtype, shift=0.25)
    assert_close(ops.layer_stats(delta, offsets), reference.layer_stats(delta, offsets))


@pytest.mark.sweep(quick=4)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("skip", [1, 2, 5])
def test_views_that_start_off_a_16_byte_border(dtype, skip):
    delta = normal(700, dtype)[skip:]
    offsets = offsets_of(3, 300, 390, 1)
    assert_close(ops.layer_stats(delta, offsets), reference.layer_stats(delta, offsets))


def test_strided_input():
    delta = normal(600)[::2]
    offsets = offsets_of(7, 200, 93)
    assert_close(ops.layer_stats(delta, offsets), reference.layer_stats(delta, offsets))


def test_no_layers_and_only_empty_layers():
    delta = normal(5)
    assert ops.layer_stats(delta, torch.tensor([0])).count.shape == (0,)
    assert ops.layer_stats_list([]).mean.shape == (0,)
    for got in (ops.layer_stats(delta, torch.tensor([2, 2, 2])), ops.layer_stats_list([delta[:0]] * 2)):
        assert got.rows.tolist() == [[0.0, 0.0]] * 5


@pytest.mark.sweep(quick=4)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [0, 127, 128, 499], ids=lambda where: f"at{where}")
def test_nonfinite_is_counted_and_stays_in_its_layer(bad, where):
    delta = normal(1000)
    delta[250 + where] = bad
    offsets = offsets_of(250, 500, 250)
    got = ops.layer_stats(delta, offsets)
    assert got.nonfinite.tolist() == [0, 1, 0]
    assert_close(got, reference.layer_stats(delta, offsets))


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
def test_opposite_infinities_and_nans_in_many_tiles(dtype):
    delta = normal(900, dtype)
    delta[[0, 3, 300, 301, 302, 899]] = torch.tensor(
        [math.inf, -math.inf, math.nan, math.inf, math.inf, math.nan], dtype=dtype, device=DEVICE
    )
    got = ops.layer_stats(delta, offsets_of(900))
    assert got.nonfinite.item() == 6
    assert_close(got, reference.layer_stats(delta, offsets_of(900)))


@pytest.mark.sweep(quick=2)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
def test_constant_layers_have_no_deviation_at_any_number_of_tiles(dtype):
    largest = min(torch.finfo(dtype).max, 1e150)
    values = (
        torch.tensor([0.0, -0.0, 0.1, -1 / 3, 1e-40, 3.0, largest], dtype=torch.float64).to(dtype).to(DEVICE)
    )
    lengths = torch.tensor([300, 1, 700, 2, 5, 3, 400])
    got = ops.layer_stats(values.repeat_interleave(lengths.to(DEVICE)), offsets_of(*lengths))
    assert got.m2.eq(0).all()
    assert got.mean.eq(values.double()).all()
    assert got.abs_max.eq(values.double().abs()).all()


@pytest.mark.sweep(quick=4)
@pytest.mark.parametrize("outlier", [False, True], ids=["plain", "far_first_element"])
@pytest.mark.parametrize(("shift", "scale"), [(1.0, 1.0), (1e3, 1.0), (1e6, 1.0), (-1e3, 1e-3)])
@pytest.mark.parametrize("dtype", UPDATE_DTYPES, ids=ids)
def test_cancellation_against_exact_arithmetic(dtype, shift, scale, outlier):
    delta = normal(1001, dtype, shift=shift, scale=scale, seed=3)
    if outlier:
        delta[0] = shift + 300 * scale
    got = ops.layer_stats(delta, offsets_of(1001))
    row = got.rows.flatten().tolist()
    oracle.assert_moments(row, delta.cpu().double().numpy())


def test_tiles_on_different_levels():
    levels = torch.arange(8, dtype=torch.float64, device=DEVICE).repeat_interleave(128) * 1e4
    delta = normal(1024, torch.float64, scale=1e-3) + levels
    assert_close(ops.layer_stats(delta, offsets_of(1024)), reference.layer_stats(delta, offsets_of(1024)))


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float32, 1e-40),
        (torch.float32, 1e38),
        (torch.bfloat16, 1e-39),
        (torch.bfloat16, 1e38),
        (torch.float16, 1e-6),
        (torch.float64, 1e-150),
        (torch.float64, 1e150),
    ],
    ids=ids,
)
def test_ends_of_the_range(dtype, scale):
    delta = (normal(400, torch.float64).clamp(-3, 3) * scale).to(dtype)
    assert delta.count_nonzero() > 200
    assert_close(ops.layer_stats(delta, offsets_of(399, 1)), reference.layer_stats(delta, offsets_of(399, 1)))


def test_same_bits_every_time():
    delta, offsets = normal(3000), offsets_of(17, 2000, 983)
    first, second = ops.layer_stats(delta, offsets), ops.layer_stats(delta, offsets)
    assert_same_bits(first.rows, second.rows)


# --- layer_stats_list ----------------------------------------------------------------------------


def test_list_of_all_dtypes_shapes_and_strides_keeps_its_order():
    tensors = [
        normal(300, torch.bfloat16).reshape(3, 100),
        normal(1),
        normal(0, torch.float64),
        normal(513, torch.float64),
        normal(400).reshape(20, 20).t(),
        normal(77, torch.float16),
        normal(500)[3:],
        normal(()),
    ]
    assert_close(ops.layer_stats_list(tensors), reference.layer_stats_list(tensors))


def test_list_reads_the_tensors_where_they_are():
    whole = normal(1000)
    views = [whole[1:400], whole[400:402], whole[500:]]
    got = ops.layer_stats_list(views)
    flat = ops.layer_stats(torch.cat(views), offsets_of(399, 2, 500))
    assert_close(got, flat)


def test_list_that_starts_with_an_empty_tensor():
    tensors = [normal(0), normal(130), normal(0), normal(5)]
    assert_close(ops.layer_stats_list(tensors), reference.layer_stats_list(tensors))


# --- accumulate_ and masked_apply_ ---------------------------------------------------------------


@pytest.mark.sweep(quick=16)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 300])
def test_accumulate_has_the_bits_of_the_reference(dtype, with_base, size):
    client, base = normal(size, dtype, seed=1), normal(size, dtype, seed=2)
    got = normal(size, TARGETS[dtype], seed=3)
    expected = got.clone()
    # Not representable in float32: a weight passed as such would show.
    for weight in (1 / 3, -0.1, 0.0, 1.0, 1e-300, 2.0**40 / 3):
        ops.accumulate_(got, client, base if with_base else None, weight)
        reference.accumulate_(expected, client, base if with_base else None, weight)
        assert_same_bits(got, expected)


@pytest.mark.parametrize("skips", [(0, 0), (1, 1), (3, 0), (4, 8)], ids=ids)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
def test_masked_apply_has_the_bits_of_the_reference_and_leaves_the_rest(dtype, skips):
    offsets = offsets_of(1, 0, 127, 128, 129, 300, 5, start=2)
    mask = torch.tensor([True, True, False, True, False, True, True])
    params = normal(700 + skips[0], TARGETS[dtype], seed=1)[skips[0] :]
    params[300] = -0.0  # adding 0 would change its bits
    delta = normal(700 + skips[1], dtype, seed=2)[skips[1] :]
    expected = params.clone()
    reference.masked_apply_(expected, delta, offsets, mask, 1 / 3)
    untouched = torch.ones(700, dtype=torch.bool)
    for layer in mask.nonzero().flatten():
        untouched[offsets[layer] : offsets[layer + 1]] = False
    before = params.clone()
    ops.masked_apply_(params, delta, offsets, mask, 1 / 3)
    assert_same_bits(params.clone(), expected)
    assert_same_bits(params[untouched], before[untouched])


def test_masked_apply_without_a_chosen_layer():
    params = normal(10)
    before = params.clone()
    ops.masked_apply_(
        params, normal(10, seed=1), torch.tensor([0, 4, 10]), torch.zeros(2, dtype=torch.bool), 1.0
    )
    assert_same_bits(params, before)


def test_update_of_subnormal_and_huge_values():
    values = torch.tensor([1e-45, -1e-40, 1e-38, 3e38, -3e38, 0.0, -0.0], device=DEVICE)
    got, expected = values.clone(), values.clone()
    ops.accumulate_(got, values.flip(0).contiguous(), values, 0.5)
    reference.accumulate_(expected, values.flip(0), values, 0.5)
    assert_same_bits(got, expected)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -1 / 3, 5e-324, 1e308, -(2.0**-31)])
def test_a_float64_survives_the_way_to_the_kernel(value):
    out = torch.zeros(1, dtype=torch.float64, device=DEVICE)
    ops.accumulate_(out, torch.ones_like(out), None, value)
    assert out.item() == value


# --- aggregate, and accumulate_ with moments ------------------------------------------------------


def assert_same_aggregate(out, vectors, weights, base, offsets, client_stats=True):
    """Compares `aggregate` into `out` with the reference: the bits, and the moments."""
    expected = torch.empty_like(out)
    truth, truths = reference.aggregate(expected, vectors, weights, base, offsets, client_stats)
    got, each = ops.aggregate(out, vectors, weights, base, offsets, client_stats)
    assert_same_bits(out.clone(), expected)
    assert_close(got, truth)
    assert (each is None) is (truths is None)
    if client_stats:
        assert each.mean.shape == (len(vectors), offsets.numel() - 1)
        for k in range(len(vectors)):
            row, true_row = (Moments(part.rows[:, k]) for part in (each, truths))
            assert_close(row, true_row)


def assert_same_accumulate(aggregate, client, base, weight, offsets):
    expected = aggregate.clone()
    truth = reference.accumulate_(expected, client, base, weight, offsets)
    assert_close(ops.accumulate_(aggregate, client, base, weight, offsets), truth)
    assert_same_bits(aggregate.clone(), expected)


def weights_of(count):
    weights = torch.arange(1, count + 1, dtype=torch.float64)
    return weights / weights.sum() / 3


@pytest.mark.sweep(quick=3)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize(
    ("count", "with_base"), [(1, True), (2, False), (5, True)], ids=["1", "2_without_base", "5"]
)
def test_aggregate_over_tiles_of_every_kind(dtype, count, with_base):
    # Whole tiles, shorter ones, none; elements before and behind the layers; a layer of 6 tiles, so that
    # one program of the second launch takes two steps.
    offsets = offsets_of(0, 1, 63, 0, 65, 330, 7, 0, start=70)
    size = int(offsets[-1]) + 66
    vectors = [normal(size, dtype, seed=seed, shift=0.25) for seed in range(count)]
    base = normal(size, dtype, seed=9) if with_base else None
    out = normal(size, TARGETS[dtype], seed=10)
    assert_same_aggregate(out, vectors, weights_of(count), base, offsets)
    assert_same_aggregate(out, vectors, weights_of(count), base, offsets, client_stats=False)
    assert_same_accumulate(out, vectors[0], base, 1 / 3, offsets)


@pytest.mark.sweep(quick=4)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("skips", [(1, 1, 1, 1), (0, 0, 0, 1), (0, 3, 0, 0), (8, 8, 8, 4)], ids=ids)
def test_aggregate_of_vectors_that_start_anywhere(dtype, skips):
    size, offsets = 200, offsets_of(3, 150, 40)
    first, second, base = (
        normal(size + skip, dtype, seed=seed)[skip:] for seed, skip in enumerate(skips[:3])
    )
    out = torch.full((size + skips[3] + 1,), 7.0, dtype=TARGETS[dtype], device=DEVICE)
    target = out[skips[3] : -1]
    assert_same_aggregate(target, [first, second], weights_of(2), base, offsets)
    assert_same_accumulate(target, first, base, -0.3, offsets)
    assert out[: skips[3]].eq(7).all()
    assert out[-1] == 7


@pytest.mark.parametrize("bounds", [[0], [5], [0, 0], [100, 100, 100], [0, 100], [99, 100]], ids=str)
@pytest.mark.parametrize("size", [0, 100], ids=lambda size: f"of{size}")
def test_aggregate_where_little_is_in_a_layer(bounds, size):
    offsets = torch.tensor(bounds).clamp(max=size)
    vectors = [normal(size, seed=seed) for seed in range(2)]
    assert_same_aggregate(normal(size, seed=5), vectors, weights_of(2), None, offsets)
    assert_same_accumulate(normal(size, seed=6), vectors[0], vectors[1], 0.1, offsets)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_aggregate_into_one_of_the_clients(which):
    vectors = [normal(333, seed=seed) for seed in range(3)]
    offsets = offsets_of(100, 1, 200)
    expected = torch.empty_like(vectors[0])
    truths = reference.aggregate(expected, vectors, weights_of(3), None, offsets, True)
    got = ops.aggregate(vectors[which], vectors, weights_of(3), None, offsets, True)
    assert_same_bits(vectors[which], expected)
    assert_close(got[0], truths[0])
    assert_close(got[1], truths[1])


@pytest.mark.sweep(quick=3)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_aggregate_counts_nonfinite_elements_where_they_are(dtype, bad):
    offsets = offsets_of(20, 100, 10)
    vectors = [normal(140, dtype, seed=seed) for seed in range(3)]
    vectors[1][[20, 50, 119, 135]] = bad
    vectors[2][[50]] = -bad
    out = torch.empty(140, dtype=TARGETS[dtype], device=DEVICE)
    for base in (None, normal(140, dtype, seed=7)):
        got, each = ops.aggregate(out, vectors, weights_of(3), base, offsets, True)
        expected = torch.empty_like(out)
        truth, truths = reference.aggregate(expected, vectors, weights_of(3), base, offsets, True)
        assert got.nonfinite.tolist() == [0, 3, 0]
        assert each.nonfinite.tolist() == [[0, 0, 0], [0, 3, 0], [0, 1, 0]]
        assert_close(got, truth)
        assert_close(each, truths)
        assert torch.equal(out.isnan(), expected.isnan())
        assert_same_bits(out.nan_to_num(1.0), expected.nan_to_num(1.0))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # NumPy again
def test_a_sum_that_leaves_float32_is_counted():
    vectors = [torch.full((100,), 3e38, device=DEVICE), normal(100)]
    out = torch.empty(100, device=DEVICE)
    weights = torch.tensor([2.0, 1.0], dtype=torch.float64)
    got, each = ops.aggregate(out, vectors, weights, None, offsets_of(100), True)
    assert out.isinf().all()
    assert got.nonfinite.item() == 100
    assert each.nonfinite.flatten().tolist() == [0, 0]


@pytest.mark.sweep(quick=2)
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float32, 1e-40), (torch.bfloat16, 1e-39), (torch.float16, 1e-6), (torch.float64, 1e-150)],
    ids=ids,
)
def test_aggregate_at_the_small_end_of_the_range(dtype, scale):
    vectors = [(normal(200, torch.float64, seed=seed) * scale).to(dtype) for seed in range(3)]
    assert vectors[0].count_nonzero() > 100
    out = torch.empty(200, dtype=TARGETS[dtype], device=DEVICE)
    weights = torch.tensor([1.0, 0.5], dtype=torch.float64)
    assert_same_aggregate(out, vectors[:2], weights, None, offsets_of(199, 1))
    assert_same_aggregate(out, vectors[:2], weights, vectors[2], offsets_of(199, 1))
    assert_same_accumulate(out, vectors[0], vectors[1], 0.7, offsets_of(199, 1))
    delta = vectors[0]
    params, expected = out.clone(), out.clone()
    ops.masked_apply_(params, delta, offsets_of(200), torch.tensor([True]), 0.7)
    reference.masked_apply_(expected, delta, offsets_of(200), torch.tensor([True]), 0.7)
    assert_same_bits(params, expected)


@pytest.mark.sweep(quick=3)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("value", [-0.0, 0.1, 1e-40])
def test_clients_that_are_constant_have_no_deviation(dtype, value):
    size, offsets = 200, offsets_of(1, 170, 29)
    vectors = [torch.full((size,), value * k, dtype=dtype, device=DEVICE) for k in (1, 3)]
    base = torch.full((size,), 0.7, dtype=dtype, device=DEVICE)
    out = torch.empty(size, dtype=TARGETS[dtype], device=DEVICE)
    for origin in (None, base):
        got, each = ops.aggregate(out, vectors, weights_of(2), origin, offsets, True)
        assert got.m2.eq(0).all()
        assert each.m2.eq(0).all()
        assert got.mean.eq(out[0].double()).all()
        assert each.abs_max.eq(each.mean.abs()).all()


@pytest.mark.parametrize("dtype", UPDATE_DTYPES, ids=ids)
def test_moments_of_an_aggregate_far_from_zero(dtype):
    vectors = [normal(900, dtype, seed=seed, shift=1e5) for seed in range(2)]
    vectors[0][0] = -3e7
    out = torch.empty(900, dtype=dtype, device=DEVICE)
    assert_same_aggregate(out, vectors, torch.tensor([0.5, 0.5]).double(), None, offsets_of(700, 200))


def test_aggregate_has_the_same_bits_every_time():
    vectors, offsets = [normal(1500, seed=seed) for seed in range(3)], offsets_of(17, 1000, 483)
    out = torch.empty(1500, device=DEVICE)
    runs = []
    for _ in range(2):
        got, each = ops.aggregate(out, vectors, weights_of(3), None, offsets, True)
        runs.append([out.clone(), got.rows, each.rows])
    for first, second in zip(*runs, strict=True):
        assert_same_bits(first, second)


def test_the_table_of_clients_is_reused_and_never_stale():
    vectors, weights = [normal(100, seed=seed) for seed in range(2)], weights_of(2)
    out = torch.empty(100, device=DEVICE)
    for _ in range(2):
        assert_same_aggregate(out, vectors, weights, None, offsets_of(100))
    assert len(clients._cache) == 1
    weights[0] = 5.0  # the same tensor
    assert_same_aggregate(out, vectors, weights, None, offsets_of(100))
    vectors.reverse()  # the same vectors
    assert_same_aggregate(out, vectors, weights, None, offsets_of(100))
    assert len(clients._cache) == 3
    for count in range(2 * clients.CACHED_TABLES):
        clients.table_of(vectors, weights + count)
    assert len(clients._cache) == clients.CACHED_TABLES


# --- the tile table ------------------------------------------------------------------------------


def test_tiles_cover_every_layer_once_and_start_on_16_bytes():
    lengths = torch.tensor([0, 1, 127, 128, 129, 1000, 0, 3])
    starts = torch.tensor([5, 5, 6, 133, 300, 2**33 + 1, 9, 2**33 + 2000])  # beyond 32 bits, with gaps
    for lead in range(4):
        table = tiles.build(tiles.Layers(starts.numpy(), lengths.numpy()), lead, 4, torch.device("cpu"))
        assert ((table.starts + lead) % 4 == 0).all()
        assert (table.stops <= TILE_BYTES // 4).all()
        for layer, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            begin, end = table.bounds[layer : layer + 2].tolist()
            covered = [
                table.starts[tile] + lane
                for tile in range(begin, end)
                for lane in range(table.firsts[tile], table.stops[tile])
            ]
            assert covered == list(range(start, start + length))


def test_table_is_reused_and_never_stale():
    delta = normal(400)
    offsets = torch.tensor([0, 100, 400])
    ops.layer_stats(delta, offsets)
    ops.layer_stats(delta.clone(), offsets.clone())
    assert len(tiles._cache) == 1
    offsets[1] = 150  # the same tensor, the same length
    assert_close(ops.layer_stats(delta, offsets), reference.layer_stats(delta, offsets))
    offsets.numpy()[1] = 200  # a change that torch's version counter does not see
    assert_close(ops.layer_stats(delta, offsets), reference.layer_stats(delta, offsets))
    offsets += 7  # every start moves, no length does
    delta = torch.cat((delta, normal(7, seed=1)))
    assert_close(ops.layer_stats(delta, offsets), reference.layer_stats(delta, offsets))
    assert len(tiles._cache) == 4
    # The same offsets over another alignment or element size are another table.
    assert_close(ops.layer_stats(normal(408)[1:], offsets), reference.layer_stats(normal(408)[1:], offsets))
    assert_close(ops.layer_stats(delta.double(), offsets), reference.layer_stats(delta.double(), offsets))
    assert len(tiles._cache) == 6


def test_the_cache_is_bounded():
    delta = normal(200)
    for cut in range(1, 2 * tiles.CACHED_TABLES):
        tiles.tiles_of(tiles.Layers(np.array([0, cut]), np.array([cut, 200 - cut])), delta)
    assert len(tiles._cache) == tiles.CACHED_TABLES


@pytest.mark.timeout(5)
def test_a_hundred_thousand_layers_are_cut_at_once():
    layers = tiles.Layers(np.arange(100_000) * 100, np.full(100_000, 100))
    table = tiles.build(layers, 0, 4, torch.device("cpu"))
    assert table.count == 100_000


def test_launch_constants_fit_each_other(monkeypatch):
    monkeypatch.undo()
    for size in (2, 4, 8):
        step = layer_stats.ROWS * layer_stats.ROW_BYTES
        assert tiles.TILE_BYTES % step == 0
        assert tiles.TILE_BYTES % masked_apply.BLOCK_BYTES == 0
        for elements in (layer_stats.ROWS, layer_stats.ROW_BYTES // size, masked_apply.BLOCK_BYTES // size):
            assert elements & (elements - 1) == 0
    # A power of two divides exactly (put_moments); no thread reads what another one may have overwritten.
    for block in (aggregate.BLOCK, aggregate.BLOCK_WITH_CLIENTS, accumulate.MOMENTS_BLOCK):
        assert block & (block - 1) == 0
        assert block >= anchored.THREADS.value
    # The error of their sums is proven for 16 elements a thread.
    assert max(aggregate.BLOCK_WITH_CLIENTS, accumulate.MOMENTS_BLOCK) <= 16 * anchored.THREADS.value


def test_the_shipped_constants(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv(pairs.VARIABLE, "float64")
    delta = normal(40_011, shift=0.5)[1:]
    offsets = offsets_of(3, 40_000, 7)
    assert_close(ops.layer_stats(delta, offsets), reference.layer_stats(delta, offsets))
    params, expected = delta.clone(), delta.clone()
    ops.masked_apply_(params, delta, offsets, torch.tensor([True, True, False]), 0.3)
    reference.masked_apply_(expected, delta, offsets, torch.tensor([True, True, False]), 0.3)
    assert_same_bits(params, expected)
    assert_same_aggregate(params, [delta, expected], weights_of(2), None, offsets)
    assert_same_accumulate(params, delta, expected, 0.3, offsets)


# --- liveness ------------------------------------------------------------------------------------


def test_a_device_that_is_not_live_is_refused():
    with pytest.raises(BackendUnavailableError, match="not on meta"):
        ops.layer_stats(torch.empty(3, device="meta"), torch.tensor([0, 3]))


def test_import_without_triton_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "fedtlu_fast.ops.triton")
    with pytest.raises(ImportError, match=r"pip install 'fedtlu-fast\[gpu\]'"):
        __import__("fedtlu_fast.ops.triton")


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_cuda_graph_replays_and_refuses_layers_it_has_not_seen():
    delta, offsets = normal(1000), offsets_of(400, 600)
    ops.layer_stats(delta, offsets)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = ops.layer_stats(delta, offsets)
    delta.mul_(2)
    graph.replay()
    assert_close(got, reference.layer_stats(delta, offsets))
    with pytest.raises(RuntimeError, match="before capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        ops.layer_stats(delta, offsets_of(300, 700))


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_cuda_graph_of_an_aggregation_replays_and_refuses_clients_it_has_not_seen():
    vectors, offsets = [normal(1000, seed=seed) for seed in range(3)], offsets_of(400, 590)
    out, expected = normal(1000), normal(1000)
    running, true_running = normal(1000), normal(1000)
    ops.aggregate(out, vectors, weights_of(3), None, offsets, True)
    ops.accumulate_(running.clone(), vectors[0], None, 0.3, offsets)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got, each = ops.aggregate(out, vectors, weights_of(3), None, offsets, True)
        moved = ops.accumulate_(running, vectors[0], None, 0.3, offsets)
    for vector in vectors:
        vector.mul_(2)
    graph.replay()
    truth, truths = reference.aggregate(expected, vectors, weights_of(3), None, offsets, True)
    assert_same_bits(out, expected)
    assert_close(got, truth)
    assert_close(each, truths)
    assert_close(moved, reference.accumulate_(true_running, vectors[0], None, 0.3, offsets))
    assert_same_bits(running, true_running)
    with pytest.raises(RuntimeError, match="before capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        ops.aggregate(out, vectors[::-1], weights_of(3), None, offsets, True)


# --- any shape, any value ------------------------------------------------------------------------


@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=5),
    dtype=st.sampled_from(DTYPES),
    skip=st.integers(0, 9),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
    shift=st.sampled_from([0.0, 1.0, -1e3]),
    seed=st.integers(0, 2**32),
    specials=st.lists(st.tuples(st.integers(0, 1499), st.floats(width=16)), max_size=4),
)
def test_any_layers(lengths, dtype, skip, scale, shift, seed, specials):
    total = sum(lengths)
    delta = normal(total + skip, dtype, seed=seed, scale=scale, shift=shift)[skip:]
    for index, value in specials:
        if index < total:
            delta[index] = value
    offsets = offsets_of(*lengths)
    expected = reference.layer_stats(delta, offsets)
    assert_close(ops.layer_stats(delta, offsets), expected)
    views = [delta[start:end] for start, end in pairwise(offsets)]
    assert_close(ops.layer_stats_list(views), expected)


@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.tuples(st.integers(0, 200), st.booleans()), min_size=1, max_size=5),
    dtype=st.sampled_from(UPDATE_DTYPES),
    seed=st.integers(0, 2**32),
    lr=st.floats(-1e3, 1e3),
)
def test_any_update(lengths, dtype, seed, lr):
    offsets = offsets_of(*(length for length, _ in lengths))
    mask = torch.tensor([chosen for _, chosen in lengths])
    got, delta = normal(int(offsets[-1]), dtype, seed=seed), normal(int(offsets[-1]), dtype, seed=seed + 1)
    expected = got.clone()
    ops.masked_apply_(got, delta, offsets, mask, lr)
    reference.masked_apply_(expected, delta, offsets, mask, lr)
    assert_same_bits(got, expected)
    ops.accumulate_(got, delta, expected, lr)
    reference.accumulate_(expected, delta, expected.clone(), lr)
    assert_same_bits(got, expected)


@examples(20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 120), max_size=4),
    around=st.tuples(st.integers(0, 70), st.integers(0, 70)),
    count=st.integers(1, 4),
    dtype=st.sampled_from(DTYPES),
    skip=st.integers(0, 9),
    with_base=st.booleans(),
    seed=st.integers(0, 2**32),
    weight=st.floats(-1e3, 1e3).filter(lambda x: x == 0 or abs(x) > 1e-100),
)
def test_any_aggregation(lengths, around, count, dtype, skip, with_base, seed, weight):
    offsets = offsets_of(*lengths, start=around[0])
    size = int(offsets[-1]) + around[1]
    vectors = [normal(size + skip, dtype, seed=seed + k)[skip:] for k in range(count)]
    base = normal(size, dtype, seed=seed + 9) if with_base else None
    out = torch.empty(size, dtype=TARGETS[dtype], device=DEVICE)
    assert_same_aggregate(out, vectors, weights_of(count) * weight, base, offsets)
    assert_same_accumulate(out, vectors[0], base, weight, offsets)
