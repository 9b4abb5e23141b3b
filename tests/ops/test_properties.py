"""Tests properties that hold for any vectors, layers and weights, on every backend of the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given
from hypothesis import strategies as st
from support import oracle
from support.sampling import examples
from torch import Tensor

from fedtlu_fast.ops import backends, dispatch, reference
from fedtlu_fast.ops.checks import TARGETS
from fedtlu_fast.ops.moments import Moments

DTYPES = tuple(TARGETS)
# The interpreter needs a good part of a second for what takes the others microseconds.
EXAMPLES = {"native": 150, "reference": 40, "triton": 8}
NAMES = Moments.NAMES
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning"),  # the interpreter's NumPy
    pytest.mark.parametrize("backend", backends.live_backends("cpu")),
]

seeds = st.integers(0, 2**32 - 1)
weights = st.one_of(
    st.floats(-2, 2), st.sampled_from([0.0, -0.0, 1.0, 5e-324, 1e300, -1 / 3]), st.floats(-1e38, 1e38)
)


def holds(backend: str, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Runs the check on draws of the strategy; slow strategies are drawn less often."""

    phases = [phase for phase in Phase if backend != "triton" or phase != Phase.shrink]

    @examples(EXAMPLES[backend], phases=phases)
    @given(strategy)
    def run(drawn: Any) -> None:
        check(drawn)

    run()


@st.composite
def vectors(draw: st.DrawFn, size: int, dtype: torch.dtype, bad: bool = True) -> Tensor:
    """Draws vectors [size] of any stride and start; with NaN and Inf only if `bad`."""
    stride, start = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(0, 3))
    length = start + size * stride
    rng = np.random.default_rng(draw(seeds))
    kind = draw(st.sampled_from(["normal", "drawn", "near", "mixed", "tiny", "huge", "constant", "bad"]))
    values = rng.normal(size=length)
    if kind == "drawn":
        # float64 that would leave its own range when squared is `test_native`'s business.
        drawn = draw(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=30))
        values = np.resize(np.array(drawn), length)
    elif kind == "near":  # what is left when two nearly equal numbers are subtracted
        values = 1000 + values * 10.0 ** -draw(st.integers(0, 6))
    elif kind == "mixed":
        values *= 10.0 ** rng.uniform(-38, 30, length)
    elif kind == "tiny":
        values *= {torch.float16: 1e-6, torch.float64: 1e-140}.get(dtype, 1e-40)
    elif kind == "huge":
        values *= {torch.float16: 1e4, torch.float64: 1e140}.get(dtype, 5e37)
    elif kind == "constant":
        values[:] = values[:1]
    vector = torch.from_numpy(values).to(dtype)
    if kind == "bad" and bad:
        vector[torch.from_numpy(rng.random(length) < 0.05)] = draw(st.sampled_from([math.nan, math.inf]))
        vector[torch.from_numpy(rng.random(length) < 0.05)] = -math.inf
    elif not bad:
        vector = torch.nan_to_num(vector)
    return vector[start::stride][:size]


@st.composite
def cuts(draw: st.DrawFn, size: int) -> Tensor:
    """Draws offsets of up to eight layers, also empty ones; they may leave out both ends of the vector."""
    return torch.tensor(sorted(draw(st.lists(st.integers(0, size), min_size=1, max_size=9))))


@st.composite
def layered(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    size = draw(st.one_of(st.integers(0, 200), st.sampled_from([1023, 1024, 1025, 4097])))
    return draw(vectors(size, draw(st.sampled_from(DTYPES)))), draw(cuts(size))


def columns(moments: Moments) -> Tensor:
    return moments.rows


def assert_same(got: Tensor, expected: Tensor) -> None:
    """Checks for the same bits, except for payloads of NaN."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    integer = INTEGERS[got.element_size()]
    same = got.contiguous().view(integer) == expected.contiguous().view(integer)
    assert bool((same | (got.isnan() & expected.isnan())).all())


def assert_moments(backend: str, got: Moments | Tensor, expected: Moments | Tensor) -> None:
    """Checks for the same bits; Triton's depend on the address, so its inexact moments are only close."""
    mine, its = (columns(found) if isinstance(found, Moments) else found for found in (got, expected))
    if backend != "triton":
        assert_same(mine, its)
        return
    assert_same(mine[[0, 3, 4]], its[[0, 3, 4]])
    count, mean, m2, abs_max, _ = its
    assert torch.equal(mine[1:3].isnan(), its[1:3].isnan())
    std = (m2 / count).sqrt()
    near = ((mine[1] - mean).abs() <= 1e-9 * std + 1e-13 * mean.abs()) & ((mine[2] - m2).abs() <= 1e-10 * m2)
    # Squares beyond the range of float64, or nothing to square.
    beyond = mean.isnan() | (abs_max > 1e145) | (abs_max < 1e-145)
    assert bool((near | beyond).all())


# --- layer_stats ---------------------------------------------------------------------------------


def test_moments_are_exact(backend: str) -> None:
    def check(drawn: tuple[Tensor, Tensor]) -> None:
        delta, offsets = drawn
        rows = columns(dispatch.layer_stats(delta, offsets, backend)).T.tolist()
        assert len(rows) == offsets.numel() - 1
        for row, (start, end) in zip(rows, pairwise(offsets.tolist()), strict=True):
            oracle.assert_moments(row, delta[start:end].double().numpy())

    holds(backend, layered(), check)


def test_layers_in_another_order_have_the_same_moments(backend: str) -> None:
    def check(drawn: tuple[Tensor, Tensor, int]) -> None:
        delta, offsets, seed = drawn
        layers = [delta[start:end] for start, end in pairwise(offsets.tolist())]
        order = np.random.default_rng(seed).permutation(len(layers)).tolist()
        moved = torch.cat([delta[:0], *(layers[index] for index in order)])
        ends = torch.tensor([0, *(layers[index].numel() for index in order)]).cumsum(0)
        expected = columns(dispatch.layer_stats(delta, offsets, backend))[:, order]
        assert_moments(backend, dispatch.layer_stats(moved, ends, backend), expected)
        listed = dispatch.layer_stats_list([layers[index] for index in order], backend)
        assert_moments(backend, listed, expected)

    holds(backend, st.tuples(layered(), seeds).map(lambda drawn: (*drawn[0], drawn[1])), check)


def test_what_lies_around_the_layers_does_not_matter(backend: str) -> None:
    def check(drawn: tuple[Tensor, Tensor, int, int]) -> None:
        delta, offsets, before, after = drawn
        junk = torch.full((max(before, after),), math.nan, dtype=delta.dtype)
        longer = torch.cat([junk[:before], delta, junk[:after]])
        expected = columns(dispatch.layer_stats(delta, offsets, backend))
        assert_moments(backend, dispatch.layer_stats(longer, offsets + before, backend), expected)

    around = st.tuples(layered(), st.integers(0, 70), st.integers(0, 20))
    holds(backend, around.map(lambda drawn: (*drawn[0], *drawn[1:])), check)


def test_a_power_of_two_scales_the_moments_exactly(backend: str) -> None:
    @st.composite
    def scaled(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
        dtype, size = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 300))
        rng = np.random.default_rng(draw(seeds))
        values = rng.normal(size=size) * 2.0 ** rng.integers(-3, 4, size)
        values[np.abs(values) < 0.01] = 0.0  # nothing may become a subnormal
        exponent = draw(st.integers(-7, 7) if dtype == torch.float16 else st.integers(-80, 80))
        return torch.from_numpy(values).to(dtype), draw(cuts(size)), exponent

    def check(drawn: tuple[Tensor, Tensor, int]) -> None:
        delta, offsets, exponent = drawn
        factor = 2.0**exponent
        expected = columns(dispatch.layer_stats(delta, offsets, backend))
        expected *= torch.tensor([1.0, factor, factor**2, factor, 1.0], dtype=torch.float64)[:, None]
        assert_moments(backend, dispatch.layer_stats(delta * factor, offsets, backend), expected)

    holds(backend, scaled(), check)


# --- accumulate_ ---------------------------------------------------------------------------------


def test_accumulate_has_the_bits_of_the_reference_and_the_moments_of_its_result(backend: str) -> None:
    @st.composite
    def calls(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor | None, float, Tensor | None]:
        dtype, size = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 300))
        start, client = draw(vectors(size, TARGETS[dtype])), draw(vectors(size, dtype))
        base = draw(st.none() | vectors(size, dtype))
        return start, client, base, draw(weights), draw(st.none() | cuts(size))

    def check(drawn: tuple[Tensor, Tensor, Tensor | None, float, Tensor | None]) -> None:
        start, client, base, weight, offsets = drawn
        expected, got = start.contiguous().clone(), start.contiguous().clone()
        reference.accumulate_(expected, client, base, weight)
        if offsets is None:
            dispatch.accumulate_(got, client, base, weight, backend)
        else:
            moments = dispatch.accumulate_(got, client, base, weight, backend, offsets=offsets)
            assert_moments(backend, moments, dispatch.layer_stats(got, offsets, backend))
        assert_same(got, expected)

    holds(backend, calls(), check)


# --- aggregate -----------------------------------------------------------------------------------


@st.composite
def federations(draw: st.DrawFn) -> tuple[list[Tensor], list[float], Tensor | None, Tensor]:
    """Draws clients, their weights, a base or None, and offsets."""
    dtype, size = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 200))
    clients = draw(st.lists(vectors(size, dtype), min_size=1, max_size=6))
    shares = draw(st.lists(weights, min_size=len(clients), max_size=len(clients)))
    return clients, shares, draw(st.none() | vectors(size, dtype)), draw(cuts(size))


def test_aggregate_has_the_bits_of_the_reference_and_the_moments_of_its_result(backend: str) -> None:
    def check(drawn: tuple[list[Tensor], list[float], Tensor | None, Tensor]) -> None:
        clients, shares, base, offsets = drawn
        dtype = TARGETS[clients[0].dtype]
        expected = torch.empty(clients[0].shape, dtype=dtype)
        reference.aggregate(
            expected, clients, torch.tensor(shares, dtype=torch.float64), base, offsets, False
        )
        got, moments, each = dispatch.aggregate(
            clients, shares, offsets, base=base, client_stats=True, backend=backend
        )
        assert_same(got, expected)
        assert_moments(backend, moments, dispatch.layer_stats(got, offsets, backend))
        assert each is not None
        assert each.mean.shape == (len(clients), offsets.numel() - 1)
        for index, client in enumerate(clients):
            change = client if base is None else (client.double() - base.double()).to(dtype)
            own = torch.stack([getattr(each, name)[index] for name in NAMES])
            assert_moments(backend, own, dispatch.layer_stats(change, offsets, backend))

    holds(backend, federations(), check)


def test_aggregate_over_one_of_its_clients(backend: str) -> None:
    def check(drawn: tuple[list[Tensor], list[float], Tensor | None, Tensor]) -> None:
        clients, shares, base, offsets = drawn
        out = clients[-1].contiguous().to(TARGETS[clients[0].dtype])
        clients = [client.to(out.dtype) for client in clients[:-1]] + [out]
        base = None if base is None else base.to(out.dtype)
        fresh, moments, each = dispatch.aggregate(
            [client.clone() for client in clients],
            shares,
            offsets,
            base=base,
            client_stats=True,
            backend=backend,
        )
        got, same_moments, same_each = dispatch.aggregate(
            clients, torch.tensor(shares, dtype=torch.float64), offsets,
            base=base, out=out, client_stats=True, backend=backend,
        )  # fmt: skip
        assert got is out
        assert_same(got, fresh)
        assert_moments(backend, same_moments, moments)
        assert same_each is not None
        assert each is not None
        for index in range(len(clients)):
            own, other = (
                torch.stack([getattr(found, name)[index] for name in NAMES]) for found in (same_each, each)
            )
            assert_moments(backend, own, other)

    holds(backend, federations(), check)


def test_aggregate_is_linear_in_powers_of_two(backend: str) -> None:
    """Doubled weights double the vector, bit for bit; a single client with weight 1 is the vector."""

    def check(drawn: tuple[int, int, int]) -> None:
        seed, number, exponent = drawn
        rng = np.random.default_rng(seed)
        clients = torch.from_numpy(rng.normal(size=(number, 77))).float()
        shares, offsets = rng.uniform(0.1, 1, number).tolist(), torch.tensor([0, 5, 77])
        factor = 2.0**exponent
        once, moments, _ = dispatch.aggregate(clients, shares, offsets, backend=backend)
        scaled = [share * factor for share in shares]
        more, more_moments, _ = dispatch.aggregate(clients, scaled, offsets, backend=backend)
        assert_same(more, once * factor)
        factors = torch.tensor([1.0, factor, factor**2, factor, 1.0], dtype=torch.float64)[:, None]
        assert_moments(backend, more_moments, columns(moments) * factors)
        alone, _, _ = dispatch.aggregate(clients[:1], [1.0], offsets, backend=backend)
        assert_same(alone, clients[0])

    holds(backend, st.tuples(seeds, st.integers(1, 9), st.integers(-40, 40)), check)


# --- masked_apply_ -------------------------------------------------------------------------------


def test_masked_apply_changes_the_chosen_layers_alone(backend: str) -> None:
    @st.composite
    def calls(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
        dtype, size = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 300))
        params, delta, offsets = (
            draw(vectors(size, TARGETS[dtype])),
            draw(vectors(size, dtype)),
            draw(cuts(size)),
        )
        layers = offsets.numel() - 1
        mask = torch.tensor(draw(st.lists(st.booleans(), min_size=layers, max_size=layers)), dtype=torch.bool)
        return params, delta, offsets, mask, draw(weights)

    def check(drawn: tuple[Tensor, Tensor, Tensor, Tensor, float]) -> None:
        params, delta, offsets, mask, lr = drawn
        expected, got = params.contiguous().clone(), params.contiguous().clone()
        reference.masked_apply_(expected, delta, offsets, mask, lr)
        dispatch.masked_apply_(got, delta, offsets, mask, lr, backend)
        assert_same(got, expected)
        chosen = torch.zeros(got.shape, dtype=torch.bool)
        for (start, end), flag in zip(pairwise(offsets.tolist()), mask.tolist(), strict=True):
            chosen[start:end] |= flag
        integer = INTEGERS[got.element_size()]
        assert torch.equal(got.view(integer)[~chosen], params.contiguous().view(integer)[~chosen])

    holds(backend, calls(), check)
