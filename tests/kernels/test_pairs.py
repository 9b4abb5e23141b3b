"""Tests the sums that are kept in pairs of float32, in Triton's interpreter or on a GPU.

Tiles have a few dozen elements here, because the interpreter joins lane after lane in Python.
"""

import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support import oracle
from support.sampling import examples, fresh

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from fedtlu_fast.errors import InputError  # noqa: E402
from fedtlu_fast.kernels import (  # noqa: E402
    accumulate,
    aggregate,
    anchored,
    device,
    layer_stats,
    merge,
    pairs,
    tiles,
)
from fedtlu_fast.ops import reference  # noqa: E402
from fedtlu_fast.ops import triton as ops  # noqa: E402
from fedtlu_fast.ops.moments import Moments  # noqa: E402

pytestmark = [
    pytest.mark.skipif(DEVICE not in ops.devices(), reason=f"Triton is not live on {DEVICE}"),
    pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning"),  # the interpreter's NumPy
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ROWS, WIDTH, TILE = 2, 8, 64


@pytest.fixture(autouse=True)
def small_tiles_in_pairs(monkeypatch):
    """Sets short tiles and steps for float32, and asks for pairs."""
    monkeypatch.setenv(pairs.VARIABLE, "pairs")
    monkeypatch.setattr(tiles, "TILE_BYTES", 4 * TILE)
    monkeypatch.setattr(tiles, "_cache", type(tiles._cache)(maxlen=tiles.CACHED_TABLES))
    monkeypatch.setattr(layer_stats, "ROWS", ROWS)
    monkeypatch.setattr(layer_stats, "ROW_BYTES", 4 * WIDTH)
    monkeypatch.setattr(merge, "MERGE_LANES", dict.fromkeys((False, True), (1, 2, 4)))
    monkeypatch.setattr(accumulate, "MOMENTS_BLOCK", 32)
    monkeypatch.setattr(aggregate, "BLOCK", 16)
    monkeypatch.setattr(aggregate, "BLOCK_WITH_CLIENTS", 32)
    monkeypatch.setattr(anchored, "THREADS", tl.constexpr(2))


@pytest.fixture
def partials(monkeypatch):
    """The list of the tiles' results, as every operation hands them to the launch that merges them."""
    seen = []

    def spy(module):
        def call(found, *args):
            seen.append(found.clone())
            return merge.merge(found, *args)

        monkeypatch.setattr(module, "merge", call)

    for module in (layer_stats, accumulate, aggregate):
        spy(module)
    return seen


def tensor(values, dtype=torch.float32):
    return torch.from_numpy(np.asarray(values, dtype=np.float64)).to(dtype).to(DEVICE)


def offsets_of(*lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


def rows_of(moments):
    return moments.rows.movedim(0, -1).cpu()


def assert_right(moments, layers):
    for row, layer in zip(rows_of(moments), layers, strict=True):
        oracle.assert_moments(row, layer.cpu().double().numpy(), m2_rel=1e-11, ratio_rel=1e-12)


def assert_neighbours(got, expected):
    """Sums are float64's, but for the last digit (`test_pair_sums.py`)."""
    assert torch.equal(got.isnan(), expected.isnan())
    apart = got.nan_to_num(7).view(torch.int32) - expected.nan_to_num(7).view(torch.int32)
    assert apart.abs().max() <= 1


# --- the arithmetic ------------------------------------------------------------------------------


def two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def modelled(x):
    """The sums of a whole tile, by the same operations on float32 in NumPy, in the interpreter's order."""
    zero = np.zeros(WIDTH, np.float32)
    total, low, squares, squares_low, largest = zero, zero, zero, zero, zero
    for row in x.reshape(-1, WIDTH):
        total, error = two_sum(total, row)
        low = low + error
        p = row * row
        exact = row.astype(np.float64) ** 2
        squares, error = two_sum(squares, p)
        squares_low = squares_low + (error + (exact - p).astype(np.float32))
        largest = np.maximum(largest, np.abs(row))
    lanes = list(zip(total, low, squares, squares_low, strict=True))
    a, a_low, q, q_low = lanes[0]
    for b, b_low, r, r_low in lanes[1:]:
        (a, e), (q, f) = two_sum(a, b), two_sum(q, r)
        a_low, q_low = (a_low + b_low) + e, (q_low + r_low) + f
    assert all(type(part) is np.float32 for part in (a, a_low, q, q_low))
    return a, a_low, q, q_low, largest.max()


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU joins the lanes in another order")
@pytest.mark.sweep(quick=1)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_sums_have_the_bits_of_the_model(partials, monkeypatch, dtype):
    generator = fresh()
    x = tensor(generator.normal(0.3, 1, TILE) * 10.0 ** generator.uniform(-3, 3, TILE), dtype)
    monkeypatch.setattr(layer_stats, "ROW_BYTES", WIDTH * x.element_size())
    ops.layer_stats(x, offsets_of(TILE))
    first, _, third, fourth, fifth = partials[0][:, 0].numpy().view(np.uint64)
    words = [np.array([word], np.uint64).view(np.float32)[::-1] for word in (first, third, fourth)]
    expected = modelled(x.float().numpy())
    assert [*words[0], *words[1], words[2][0]] == list(expected)
    assert partials[0][4, 0] == pairs.PAIRS_HERE.value
    assert np.array([fifth], np.uint64).view(np.float64)[0] == -1


@pytest.mark.sweep(quick=1)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_errors_of_one_sign_stay_within_the_bound(monkeypatch, dtype):
    """Numbers whose every addition rounds down, in long lanes."""
    monkeypatch.setattr(tiles, "TILE_BYTES", 1 << 11)
    digits = {torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}[dtype]
    x = np.full(512, 1 + 2.0**-digits)
    x[::2] = -(2.0**-9) * (1 + 2.0**-digits)
    x[:8] = 16 - 2.0 ** (3 - digits)
    x = tensor(x, dtype)
    got = ops.layer_stats(x, offsets_of(512))
    truth = oracle.moments(x.cpu().double().numpy())
    assert math.isclose(got.mean.item(), truth[1], rel_tol=1.3e-11)
    assert math.isclose(got.m2.item(), truth[2], rel_tol=9e-10)


# --- which tiles hold pairs, and that all are right ----------------------------------------------

KINDS = {
    "of a change": (lambda z: 1e-3 * (z + 0.01), True),
    "at a few deviations": (lambda z: z + 5, True),
    "of tiny changes": (lambda z: 1e-13 * z, True),
    "of large numbers": (lambda z: 1e13 * z, True),
    "of zeros": (lambda z: 0 * z, True),
    "with an outlier": (lambda z: np.where(np.arange(len(z)) == 1, 1e4, z), True),
    "far from zero": (lambda z: z + 1e3, False),
    "at a million deviations": (lambda z: z + 1e6, False),
    "whose squares overflow": (lambda z: 1e30 * z.clip(-3, 3), False),
    "at the end of the range": (lambda z: 1e38 * z.clip(-3, 3), False),
    "whose squares vanish": (lambda z: 1e-20 * z, False),
    "of subnormal numbers": (lambda z: 1e-39 * z, False),
    "that is constant": (lambda z: 0 * z + 0.1, False),
    "with NaN": (lambda z: np.where(np.arange(len(z)) % 9 == 4, np.nan, z), False),
    "with both infinities": (
        lambda z: np.where(np.arange(len(z)) % 9 == 4, np.copysign(np.inf, z), z),
        False,
    ),
    "of zeros and a NaN": (lambda z: np.where(np.arange(len(z)) == 3, np.nan, 0 * z), False),
    "whose first step is another's": (lambda z: np.where(np.arange(len(z)) < 16, z, z + 1e6), True),
}


@pytest.mark.sweep(quick=3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_tile(partials, kind, dtype):
    make, in_pairs = KINDS[kind]
    z = fresh().normal(size=TILE)
    x = tensor(make(z), dtype)
    if x.isfinite().all() and in_pairs is False and dtype == torch.bfloat16:
        in_pairs = None  # 8 digits hold no deviations there, or few: constant or not
    got = ops.layer_stats(x, offsets_of(TILE))
    assert_right(got, [x])
    if in_pairs is not None:
        assert bool((partials[0][4] == pairs.PAIRS_HERE.value).all()) == in_pairs
    elif x.unique().numel() == 1:
        assert got.m2.item() == 0


def test_a_layer_of_tiles_of_both_kinds():
    generator = fresh()
    parts = [
        make(generator.normal(size=n))
        for n, (make, _) in zip(
            (64, 7, 1, 64, 3),
            (
                KINDS["of a change"],
                KINDS["far from zero"],
                KINDS["that is constant"],
                KINDS["of zeros"],
                KINDS["of large numbers"],
            ),
            strict=True,
        )
    ]
    x = tensor(np.concatenate(parts))
    assert_right(ops.layer_stats(x, offsets_of(len(x))), [x])
    assert_right(ops.layer_stats(x[3:], offsets_of(len(x) - 3)), [x[3:]])


@pytest.mark.sweep(quick=1)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_base", [False, True], ids=["changes", "with_base"])
def test_sums_of_clients_and_their_moments(partials, dtype, with_base):
    generator = fresh()
    kinds = ("of a change", "far from zero", "with NaN", "of subnormal numbers")
    offsets = offsets_of(20, 0, 17, 1)
    vectors = [tensor(KINDS[kind][0](generator.normal(size=40)), dtype)[1:] for kind in kinds]
    base = tensor(generator.normal(size=39), dtype) if with_base else None
    weights = torch.tensor([0.3, -0.1, 0.0, 0.4]).double()
    out, expected = (torch.empty(39, device=DEVICE) for _ in range(2))
    got, each = ops.aggregate(out, vectors, weights, base, offsets, True)
    _, truths = reference.aggregate(expected, vectors, weights, base, offsets, True)
    assert_neighbours(out, expected)
    cuts = [slice(0, 20), slice(0, 0), slice(20, 37), slice(37, 38)]
    assert_right(got, [out[cut] for cut in cuts])
    for k, vector in enumerate(vectors):
        change = vector if base is None else (vector.double() - base.double()).float()
        row = Moments(each.rows[:, k])
        assert_right(row, [change[cut] for cut in cuts])
        assert torch.equal(row.nonfinite, truths.nonfinite[k])
    share = (partials[0][:, 4] == pairs.PAIRS_HERE.value).double().mean(dim=1)  # a tile may hold zeros only
    assert share[1] >= 0.5
    # Subnormal numbers minus a base are ordinary, and float16 has 0 in their place.
    assert (share[4] >= 0.5) == (with_base or dtype == torch.float16)


@pytest.mark.sweep(quick=1)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_moments_of_what_is_accumulated(partials, dtype):
    generator = fresh()
    client, base = (tensor(generator.normal(size=61), dtype)[1:] for _ in range(2))
    got, expected = (tensor(KINDS["of a change"][0](np.arange(60) - 20.0)) for _ in range(2))
    moments = ops.accumulate_(got, client, base, 1 / 3, offsets_of(23, 37))
    reference.accumulate_(expected, client, base, 1 / 3)
    assert_neighbours(got, expected)
    assert_right(moments, [got[:23], got[23:60]])
    assert (partials[0][4] == pairs.PAIRS_HERE.value).any()


@pytest.mark.slow
def test_float64_is_never_kept_in_pairs(partials):
    x = tensor(fresh().normal(size=100), torch.float64)
    assert_right(ops.layer_stats(x, offsets_of(100)), [x])
    out = torch.empty_like(x)
    moments, _ = ops.aggregate(out, [x], torch.ones(1).double(), None, offsets_of(100), True)
    assert_right(moments, [x])
    assert all((found >= 0).all() for found in (partials[0][4], partials[1][:, 4]))


@pytest.mark.slow
@examples(16, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    skip=st.integers(0, 9),
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_any_layers(lengths, dtype, skip, kinds, seed):
    z = np.random.default_rng(seed).normal(size=sum(lengths) + skip)
    pieces = np.array_split(z, len(kinds))
    values = [KINDS[kind][0](piece) for kind, piece in zip(kinds, pieces, strict=True)]
    delta = tensor(np.concatenate(values), dtype)[skip:]
    offsets = offsets_of(*lengths)
    layers = list(delta.split(lengths))
    assert_right(ops.layer_stats(delta, offsets), layers)
    assert_right(ops.layer_stats_list(layers), layers)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_shipped_constants(monkeypatch, dtype):
    monkeypatch.undo()
    monkeypatch.setenv(pairs.VARIABLE, "pairs")
    delta = tensor(fresh().normal(0.01, 1, 40_011), dtype)[1:]
    offsets = offsets_of(3, 40_000, 7)
    assert_right(ops.layer_stats(delta, offsets), list(delta.split([3, 40_000, 7])))


# --- the choice ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "expected"), [("pairs", True), ("float64", False), ("auto", False)])
def test_the_environment_decides(monkeypatch, asked, expected):
    monkeypatch.setenv(pairs.VARIABLE, asked)
    assert pairs.use_pairs(torch.float32, torch.device("cpu")) is expected
    assert pairs.use_pairs(torch.float64, torch.device("cpu")) is False


def test_an_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv(pairs.VARIABLE, "float32")
    with pytest.raises(InputError, match=r"FEDTLU_GPU_SUMS.*'float32'.*pairs"):
        ops.layer_stats(tensor([1.0]), offsets_of(1))


@pytest.mark.parametrize(
    ("capability", "architecture", "expected"),
    [
        ((7, 0), None, False),
        ((7, 5), None, True),
        ((8, 0), None, False),
        ((8, 6), None, True),
        ((8, 9), None, True),
        ((9, 0), None, False),
        ((10, 0), None, False),
        ((10, 3), None, True),
        ((12, 0), None, True),
        ((9, 4), "gfx942:sramecc+:xnack-", False),
        ((11, 0), "gfx1100", True),
    ],
    ids=str,
)
def test_pairs_are_for_gpus_whose_float64_is_slow(monkeypatch, capability, architecture, expected):
    monkeypatch.delenv(pairs.VARIABLE)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    properties = SimpleNamespace(gcnArchName=architecture)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "hip", architecture and "6.4")
    device.fast_float64.cache_clear()
    assert pairs.use_pairs(torch.bfloat16, torch.device("cuda", 0)) is expected
    device.fast_float64.cache_clear()
