"""Tests the sums of tiles in registers, which start from anchors, in Triton's interpreter or on a GPU."""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support import oracle
from support.exact_sums import fused
from support.sampling import examples, fresh

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from fedtlu_fast.kernels import aggregate, anchored, device, merge, pairs  # noqa: E402
from fedtlu_fast.ops import triton as ops  # noqa: E402

pytestmark = [
    pytest.mark.skipif(DEVICE not in ops.devices(), reason=f"Triton is not live on {DEVICE}"),
    pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning"),  # the interpreter's NumPy
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
THREADS, TILE = 4, 64


@pytest.fixture(autouse=True)
def small_tiles_in_pairs(monkeypatch):
    monkeypatch.setenv(pairs.VARIABLE, "pairs")
    monkeypatch.setattr(aggregate, "BLOCK_WITH_CLIENTS", TILE)
    monkeypatch.setattr(anchored, "THREADS", tl.constexpr(THREADS))


@pytest.fixture
def partials(monkeypatch):
    """The list of the tiles' results, as aggregate hands them to the launch that merges them."""
    seen = []

    def spy(found, *args):
        seen.append(found.clone())
        return merge.merge(found, *args)

    monkeypatch.setattr(aggregate, "merge", spy)
    return seen


def moments_of(x):
    """The moments of one client's change, in one layer."""
    offsets = torch.tensor([0, x.numel()])
    out = torch.empty(x.numel(), device=DEVICE)
    return ops.aggregate(out, [x], torch.ones(1).double(), None, offsets, True)[1]


def two_sum(a, b):
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def modelled(x, vector):
    """The sums of a tile by the same operations on float32 in NumPy, in the interpreter's order."""
    parts = [x]
    while len(parts[0]) > THREADS:
        far = len(parts[0]) > THREADS * vector
        halves = [(p[: len(p) // 2], p[len(p) // 2 :]) if far else (p[::2], p[1::2]) for p in parts]
        parts = [half for pair in halves for half in pair]
    largest = np.abs(parts).max(axis=0)
    anchor, bound = largest * np.float32(2 * len(parts)), largest * largest * np.float32(2)
    total, squares, low, squares_low = anchor, bound, np.zeros_like(anchor), np.zeros_like(anchor)
    for part in parts:
        before, total = total, total + part
        low = low + (part - (total - before))
        before, squares = squares, fused(part, part, squares)
        squares_low = squares_low + fused(part, part, before - squares)
    above, squares = squares, squares - bound
    squares_low = squares_low - (bound + (squares - above))
    lanes = list(zip(total - anchor, low, squares, squares_low, strict=True))
    a, a_low, q, q_low = lanes[0]
    for b, b_low, r, r_low in lanes[1:]:
        (a, e), (q, f) = two_sum(a, b), two_sum(q, r)
        a_low, q_low = (a_low + b_low) + e, (q_low + r_low) + f
    assert all(type(part) is np.float32 for part in (a, a_low, q, q_low))
    return [a, a_low, q, q_low, largest.max()]


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU joins the threads in another order")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_sums_have_the_bits_of_the_model(partials, dtype):
    generator = fresh()
    values = generator.normal(0.3, 1, TILE) * 10.0 ** generator.uniform(-3, 3, TILE)
    x = torch.from_numpy(values).to(dtype)
    moments_of(x)
    first, _, third, fourth, marker = partials[0][1, :, 0].numpy()
    words = [np.array([word]).view(np.float32)[::-1] for word in (first, third, fourth)]
    found = [*words[0], *words[1], words[2][0]]
    assert found == modelled(x.float().numpy(), 16 // x.element_size())
    assert marker == pairs.PAIRS_HERE.value


def worst(digits, sign):
    """Numbers of which each addition rounds away almost half of the last place, in one direction."""
    x = np.full(TILE, sign * 2.0**-17 * (1 + 2.0**-digits))
    x[:: TILE // THREADS] = 1.0
    return x


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_errors_of_one_sign_stay_within_the_bound(partials, dtype, sign):
    digits = {torch.float32: 23, torch.bfloat16: 7, torch.float16: 10}[dtype]
    check(torch.from_numpy(worst(digits, sign)).to(dtype).to(DEVICE))
    assert (partials[0][1, 4, :1] == pairs.PAIRS_HERE.value).all()


@examples(24, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(DTYPES),
    size=st.integers(2, 3 * TILE),
    spread=st.floats(0, 4),
    shift=st.floats(-5, 5),
    seed=st.integers(0, 2**32),
)
def test_moments_are_within_the_bound(dtype, size, spread, shift, seed):
    generator = np.random.default_rng(seed)
    values = (generator.normal(size=size) + shift) * 10.0 ** generator.uniform(-spread, 0, size)
    check(torch.from_numpy(values).to(dtype).to(DEVICE))


def check(x):
    got = moments_of(x)
    count, mean, m2, largest, _ = oracle.moments(x.cpu().double().numpy())
    rms = np.sqrt(m2 / count + mean**2)
    assert got.abs_max.item() == largest
    assert abs(got.mean.item() - mean) <= 1.1e-11 * rms
    assert abs(got.m2.item() - m2) <= 1.1e-9 * m2


# --- warps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "expected"), [(None, 4), ("gfx942:sramecc+:xnack-", 2), ("gfx906", 2), ("gfx1100", 4)]
)
def test_a_program_has_as_many_threads_on_every_gpu(monkeypatch, architecture, expected):
    monkeypatch.setattr(device, "_architecture", lambda _: (architecture or "").partition(":")[0])
    monkeypatch.setattr(torch.version, "hip", architecture and "6.4")
    device.warp_size.cache_clear()
    assert device.warps_of(128, torch.device("cuda", 0)) == expected
    assert device.warps_of(128, torch.device("cpu")) == 4
    device.warp_size.cache_clear()
