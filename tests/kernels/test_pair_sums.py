"""Tests the weighted sums that are kept in pairs of float32, in Triton's interpreter or on a GPU."""

import math
import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support.exact_sums import addition, assert_rounded_once, changes, fused, same_bits
from support.sampling import examples, fresh

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from fedtlu_fast.kernels import accumulate, aggregate, anchored, masked_apply, pair_sums, pairs, tiles  # noqa: E402
from fedtlu_fast.ops import reference  # noqa: E402
from fedtlu_fast.ops import triton as ops  # noqa: E402

pytestmark = [
    pytest.mark.skipif(DEVICE not in ops.devices(), reason=f"Triton is not live on {DEVICE}"),
    pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning"),  # the interpreter's NumPy
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZE = 40
SKIPPED = 5
NONE, ALL = torch.tensor([0]), torch.tensor([0, SIZE])


@pytest.fixture(autouse=True)
def small_tiles_in_pairs(monkeypatch):
    monkeypatch.setenv(pairs.VARIABLE, "pairs")
    for module in (accumulate, aggregate):
        monkeypatch.setattr(module, "BLOCK", 16)
    monkeypatch.setattr(accumulate, "MOMENTS_BLOCK", 16)
    monkeypatch.setattr(aggregate, "BLOCK_WITH_CLIENTS", 16)
    monkeypatch.setattr(anchored, "THREADS", tl.constexpr(2))
    monkeypatch.setattr(tiles, "TILE_BYTES", 64)  # 16 or 32 elements, in two steps
    monkeypatch.setattr(tiles, "_cache", type(tiles._cache)(maxlen=tiles.CACHED_TABLES))
    monkeypatch.setattr(masked_apply, "BLOCK_BYTES", 32)


def tensor(values, dtype=torch.float32):
    return torch.from_numpy(np.asarray(values, dtype=np.float64)).to(dtype).to(DEVICE)


def normal(dtype=torch.float32, scale=1.0):
    return tensor(fresh().normal(size=SIZE) * scale, dtype)


def random_weights(count):
    return torch.from_numpy(fresh().normal(size=count))


def aggregated(vectors, weights, base=None, offsets=NONE, each=False):
    out = torch.empty(len(vectors[0]), device=DEVICE)
    ops.aggregate(out, vectors, weights, base, offsets, each)
    return out


def applied(params, delta, lr, module=ops):
    """The first layer, which is not chosen, begins with the vectors and ends within a tile."""
    got = params.clone()
    module.masked_apply_(got, delta, torch.tensor([0, SKIPPED, SIZE]), torch.tensor([False, True]), lr)
    assert same_bits(got[:SKIPPED], params[:SKIPPED])
    return got[SKIPPED:]


def in_float64(vectors, weights, base=None):
    out = torch.empty(len(vectors[0]), device=DEVICE)
    reference.aggregate(out, vectors, weights, base, NONE, False)
    return out


def share_of(count):
    """The bound of `pair_sums.py`, before the final rounding."""
    return (count**2 / 2 + 6 * count + 16) * 2.0**-48


# --- the arithmetic ------------------------------------------------------------------------------


@triton.jit
def _fused_kernel(a, b, c, out, SIZE: tl.constexpr):  # noqa: N803
    at = tl.arange(0, SIZE)
    tl.store(out + at, pairs.fused(tl.load(a + at), tl.load(b + at), tl.load(c + at)))


def test_a_product_and_a_sum_are_rounded_once():
    generator = fresh()
    a, b = (generator.normal(size=512).astype(np.float32) for _ in range(2))
    c = generator.normal(size=512) * 2.0 ** generator.integers(-60, 60, 512)
    c[:128] = -(a[:128] * b[:128]).astype(np.float32)  # the error of the product remains
    # The sum is so near to the middle between two float32 that float64 cannot tell.
    a[128:192], b[128:192] = 1 + 2.0**-23, 1 + 2.0**-23
    c[128:192] = 2.0**30 * (1 + 2.0**-23 * np.arange(64)) + 64
    a[192:256], b[192:256] = 2.0**-100 * a[192:256], 2.0**-30 * b[192:256]  # subnormal
    c[192:256] = 2.0**-130
    c = c.astype(np.float32)
    out = torch.empty(512, device=DEVICE)
    _fused_kernel[(1,)](*(torch.from_numpy(part).to(DEVICE) for part in (a, b, c)), out, SIZE=512)
    assert np.array_equal(out.cpu().numpy(), fused(a, b, c))


def two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def modelled(vectors, weights, base, start=None):
    """The sum by the same operations on float32 in NumPy."""
    scale = pair_sums.scale_of(weights.numpy())
    total, low = np.zeros((2, len(vectors[0])), np.float32)
    if start is not None:
        total = start.cpu().numpy() * np.float32(2.0**scale)
    for vector, (weight, weight_low) in zip(vectors, pair_sums.split(weights.numpy(), scale), strict=True):
        change, weight = vector.float().cpu().numpy(), np.broadcast_to(weight, total.shape)
        error = None
        if base is not None:
            change, error = two_sum(change, -base.float().cpu().numpy())
        p = weight * change
        e = fused(weight, change, -p)
        total, lost = two_sum(total, p)
        term = fused(np.broadcast_to(weight_low, p.shape), change, lost + e)
        low = low + (term if error is None else fused(weight, error, term))
    assert total.dtype == low.dtype == np.float32
    return torch.from_numpy((total + low) * np.float32(2.0**-scale))


@pytest.mark.sweep(quick=2)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_base", [False, True], ids=["changes", "with_base"])
def test_sums_have_the_bits_of_the_model(dtype, with_base):
    vectors = [normal(dtype, 10.0**power) for power in (0, -3, 2, -6, 0)]
    base = normal(dtype, 0.01) if with_base else None
    weights = random_weights(5) * 10.0 ** torch.tensor([0.0, 3, 0, 5, -4])
    expected = modelled(vectors, weights, base)
    for offsets, each in ((NONE, False), (ALL, False), (ALL, True)):
        assert same_bits(aggregated(vectors, weights, base, offsets, each).cpu(), expected)
    start = normal()
    expected = modelled(vectors[:1], weights[:1], base, start)
    for offsets in (None, ALL):
        got = start.clone()
        ops.accumulate_(got, vectors[0], base, weights[0].item(), offsets)
        assert same_bits(got.cpu(), expected)
    if base is None:
        got = applied(start, vectors[0], weights[0].item())
        assert same_bits(got.cpu(), expected[SKIPPED:])


def test_pairs_hold_what_float64_loses():
    """Proves that float64 did not compute this sum: there 2^60 + 1 is 2^60."""
    vectors = [torch.full((SIZE,), value, device=DEVICE) for value in (2.0**60, 1.0, -(2.0**60))]
    weights = torch.ones(3, dtype=torch.float64)
    assert in_float64(vectors, weights).eq(0).all()
    assert aggregated(vectors, weights).eq(1).all()


@examples(16, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    with_base=st.booleans(),
    spread=st.floats(0, 8),
    far=st.floats(0, 8),
    seed=st.integers(0, 2**32),
)
def test_the_error_is_within_the_bound(count, dtype, with_base, spread, far, seed):
    generator = np.random.default_rng(seed)
    sizes = 10.0 ** generator.uniform(-spread / 2, spread / 2, (count, SIZE))
    vectors = [tensor(row, dtype) for row in generator.normal(size=(count, SIZE)) * sizes]
    base = tensor(generator.normal(size=SIZE) * 10**-far, dtype) if with_base else None
    weights = torch.from_numpy(generator.normal(size=count) * 10.0 ** generator.uniform(-far, far, count))
    if count > 2:
        weights[-1] = 0
        # All but cancels.
        vectors[-2] = (-sum(w * v.double() for w, v in zip(weights[:-2], vectors[:-2], strict=True))).to(
            dtype
        ) * torch.ones_like(vectors[0])
        weights[-2] = 1
    if not all(vector.isfinite().all() for vector in vectors):
        return
    got = aggregated(vectors, weights, base)
    assert_rounded_once(got, changes(vectors, weights, base), share_of(count))
    before = tensor(sizes[0])
    got = before.clone()
    ops.accumulate_(got, vectors[0], base, weights[0].item())
    assert_rounded_once(got, addition(before, vectors[0], base, weights[0].item()), share_of(1))
    got = applied(before, vectors[0], weights[0].item())
    terms = addition(before[SKIPPED:], vectors[0][SKIPPED:], None, weights[0].item())
    assert_rounded_once(got, terms, share_of(1))


@pytest.mark.parametrize("count", [10, 100])
def test_equal_weights_leave_2_to_the_minus_44(count):
    """What is seen as a rule, and errors of one sign: every client is the same, and 1 / K is rounded."""
    weights = torch.full((count,), 1 / count, dtype=torch.float64)
    for vectors in ([normal() for _ in range(count)], [normal()] * count):
        assert_rounded_once(aggregated(vectors, weights), changes(vectors, weights, None), 2.0**-44)


def test_results_are_those_of_float64_or_their_neighbours():
    """Equal weights 1 / K put many sums in the middle between two float32; others hardly any."""
    vectors = [normal() for _ in range(10)]
    for weights, most in ((random_weights(10), 1), (torch.full((10,), 0.1, dtype=torch.float64), SIZE)):
        got, expected = aggregated(vectors, weights), in_float64(vectors, weights)
        apart = (got.view(torch.int32) - expected.view(torch.int32)).abs()
        assert apart.max() <= 1
        assert apart.sum() <= most


def test_a_step_of_the_model_is_that_of_float64_or_its_neighbour():
    for lr, most in ((1.0, 0), (0.5, 0), (0.7, 1), (1 / 3, 1)):
        params, delta = normal(), normal(scale=1e-3)
        got, expected = (applied(params, delta, lr, module) for module in (ops, reference))
        apart = (got.view(torch.int32) - expected.view(torch.int32)).abs()
        assert apart.max() <= 1
        assert apart.sum() <= most


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_step_from_minus_zero_is_plus_zero(dtype, monkeypatch):
    """Proves that pairs compute it: float64 leaves -0, and does so for a float64 target."""
    minus = torch.full((SIZE,), -0.0, device=DEVICE)
    assert same_bits(applied(minus, minus.to(dtype), 0.7), torch.zeros_like(minus[SKIPPED:]))
    wide = minus.double()
    assert torch.equal(applied(wide, wide, 0.7).signbit(), wide[SKIPPED:].signbit())
    monkeypatch.setenv(pairs.VARIABLE, "float64")
    assert same_bits(applied(minus, minus.to(dtype), 0.7), minus[SKIPPED:])


# --- what float64 computes anew -------------------------------------------------------------------

HOSTILE = {
    "NaN": lambda z: [z, np.where(np.arange(SIZE) == 5, np.nan, z)],
    "an infinity": lambda z: [np.where(np.arange(SIZE) == 5, np.inf, z), z],
    "both infinities": lambda z: [np.where(np.arange(SIZE) % 7 == 5, np.copysign(np.inf, z), z), -z],
    "sums that overflow and come back": lambda z: [0 * z + 3e38, 0 * z + 3e38, 0 * z - 3e38],
    "products beyond the scale": lambda z: [1e30 * z, z, -1e30 * z],
    "results beyond float32": lambda z: [0 * z + 3e38] * 4,
    "subnormal numbers": lambda z: [1e-40 * z, 1e-41 * z],
    "subnormal results": lambda z: [1e-30 * z, -1e-30 * z + 1e-39],
    "zeros": lambda z: [0 * z, -0.0 * z],
    "one tile in three": lambda z: [np.where(np.arange(SIZE) // 16 == 1, 1e-39, 0) * z, 0 * z],
}


@pytest.mark.sweep(quick=6)
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("each", [False, True], ids=["alone", "each"])
def test_hostile_numbers_have_the_bits_of_float64(kind, dtype, each):
    vectors = [tensor(values, dtype) for values in HOSTILE[kind](fresh().normal(size=SIZE))]
    weights = torch.linspace(0.3, 0.9, len(vectors)).double()
    for base in (None, vectors[0].flip(0).contiguous()):
        got, expected = aggregated(vectors, weights, base, ALL, each), in_float64(vectors, weights, base)
        assert torch.equal(got.isnan(), expected.isnan())
        got, expected = (part.nan_to_num(7.0, math.inf, -math.inf) for part in (got, expected))
        assert same_bits(got, expected)
        for offsets in (None, ALL):
            got, expected = (vectors[-1].float().clone() for _ in range(2))
            ops.accumulate_(got, vectors[0], base, 0.3, offsets)
            reference.accumulate_(expected, vectors[0], base, 0.3)
            assert torch.equal(got.isnan(), expected.isnan())
            got, expected = (part.nan_to_num(7.0, 1e38) + 0.0 for part in (got, expected))  # no zero is -0
            assert same_bits(got, expected)
    for params in (vectors[0].float(), vectors[-1].flip(0).float().contiguous()):
        got, expected = (applied(params, vectors[-1], 0.3, module) for module in (ops, reference))
        assert torch.equal(got.isnan(), expected.isnan())
        got, expected = (part.nan_to_num(7.0, math.inf, -math.inf) + 0.0 for part in (got, expected))
        assert same_bits(got, expected)


@pytest.mark.parametrize("exponent", [-149, -126, -100, -60])
def test_tiny_numbers_do_not_vanish(exponent):
    """The parts of these products would vanish, were the weights not scaled; the results are normal."""
    vectors = [tensor(fresh().integers(1, 2**10, SIZE) * 2.0**exponent) for _ in range(3)]
    weights = torch.tensor([1 / 3, 2.0**40 / 7, 2.0**41 / 9], dtype=torch.float64)
    assert_rounded_once(aggregated(vectors, weights), changes(vectors, weights, None), share_of(3))


@pytest.mark.parametrize(
    "weights",
    [
        [math.nan, 1.0],
        [math.inf, 1.0],
        [1e-300, 1.0],
        [1e300, 1.0],
        [1e-60, 1e-60],
        [1e-30, 1e30],
        [5e-324, 0.0],
    ],
    ids=str,
)
def test_weights_that_float32_cannot_hold_are_multiplied_in_float64(weights):
    assert pair_sums.scale_of(np.array(weights)) is None
    vectors, weights = [normal(), normal()], torch.tensor(weights, dtype=torch.float64)
    got, expected = aggregated(vectors, weights), in_float64(vectors, weights)
    assert torch.equal(got.isnan(), expected.isnan())
    assert same_bits(got.nan_to_num(7.0), expected.nan_to_num(7.0))
    got = normal()
    expected = got.clone()
    ops.accumulate_(got, vectors[0], None, weights[0].item())
    reference.accumulate_(expected, vectors[0], None, weights[0].item())
    assert same_bits(got.nan_to_num(7.0), expected.nan_to_num(7.0))


def test_weights_of_zero():
    vectors, weights = [normal(), normal()], torch.zeros(2, dtype=torch.float64)
    assert same_bits(aggregated(vectors, weights), torch.zeros(SIZE, device=DEVICE))
    weights[1] = 0.7
    assert_rounded_once(aggregated(vectors, weights), changes(vectors, weights, None), share_of(2))


@pytest.mark.parametrize("weight", [1e-20, 1e-7, 1 / 3, 1.0, 12345.678, -1e20])
def test_the_parts_of_a_weight_hold_48_digits(weight):
    weights = np.array([weight, 7 * weight, 0.0])
    scale = pair_sums.scale_of(weights)
    high, low = pair_sums.split(weights, scale).astype(np.float64).T
    assert 2.0**pair_sums.SMALLEST <= abs(high[0]) <= 2.0 ** (pair_sums.SMALLEST + 1)
    assert (abs(np.ldexp(high + low, -scale) - weights) <= 2.0**-48 * abs(weights)).all()


def test_a_float64_target_stays_in_float64():
    vectors = [torch.full((SIZE,), value, dtype=torch.float64, device=DEVICE) for value in (2.0**60, 1.0)]
    out = torch.empty(SIZE, dtype=torch.float64, device=DEVICE)
    ops.aggregate(out, vectors, torch.ones(2, dtype=torch.float64), None, ALL, True)
    assert out.eq(2.0**60).all()
