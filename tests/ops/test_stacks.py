"""The operations on a cohort's stack, against float64: on every backend, thread and SIMD level."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.ops import reference, stacks

SIZES = (1, 2, 3, 7, 8, 9, 16, 31, 33, 100, 130, 257, 300)
"""Numbers of clients on both sides of the sorting network's steps and of the widths of its tiles."""


@pytest.fixture
def native(backend):
    if backend != "native":
        pytest.skip("of the C++ backend")
    extension = pytest.importorskip("fedtlu_fast.ops.native", exc_type=ImportError).extension
    level = extension.simd_level()
    yield extension
    extension.set_simd_level(level)


def odd(generator, clients, size, wild=True):
    """Vectors [K, P] with equal values and, if `wild`, NaN of both signs, Inf and zeros of both signs."""
    stack = torch.randn(clients, size + 1, generator=generator)[:, 1:].clone()
    if clients > 3 and wild:
        stack[1, ::3] = stack[0, ::3]
        places = torch.randint(0, size, (5,), generator=generator).tolist()
        values = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0)
        for row, (place, value) in enumerate(zip(places, values, strict=True)):
            stack[row % clients, place] = value
        stack[2, places[0]] = -stack[0, places[0]]
    return stack


def by_numpy(changes, first, last):
    """The definition, without the package: sums from the smallest to the largest value, NaN last."""
    with np.errstate(all="ignore"):
        values = np.sort(changes, axis=0)[first:last].astype("f8")
        return (values.cumsum(axis=0)[-1] / (last - first)).astype("f4")


@pytest.mark.parametrize("clients", SIZES)
def test_sorted_means_have_the_bits_of_the_definition(generator, backend, backend_device, clients):
    interpreted = backend == "triton" and backend_device == "cpu"
    if interpreted and clients in (7, 16, 31, 130, 257):
        pytest.skip("the interpreter is slow, and the next number takes the same way")
    size = 5 if interpreted else 77
    stack, base = odd(generator, clients, size), torch.randn(size, generator=generator)
    middle, cut = ((clients - 1) // 2, clients // 2 + 1), clients // 10
    places = {middle, (cut, clients - cut), (0, clients), (0, 1), (clients - 1, clients)}
    if interpreted and clients > 30:
        places = {middle, (cut, clients - cut)}
    for first, last in places:
        for origin in (base,) if interpreted and clients > 30 else (None, base):
            changes = (stack if origin is None else stack - origin).numpy()
            moved = None if origin is None else origin.to(backend_device)
            given = stack.to(backend_device)
            found = stacks.sorted_mean(given, first, last, base=moved, backend=backend)
            np.testing.assert_array_equal(found.cpu().numpy(), by_numpy(changes, first, last))


@pytest.mark.parametrize("size", [0, 1, 16, 1061])
@pytest.mark.parametrize("aligned", [True, False])
def test_sorted_means_of_any_length_wherever_the_clients_lie(
    generator, backend, backend_device, size, aligned
):
    stack, base = odd(generator, 6, max(size, 1))[:, :size], torch.randn(size, generator=generator)
    expected = by_numpy((stack - base).numpy(), 2, 4)
    memory = torch.empty(6, size + 17, device=backend_device)
    rows = [row.to(backend_device) for row in stack]
    if not aligned:  # each row one element further
        rows = [memory[at, at : at + size].copy_(row) for at, row in enumerate(rows)]
    origin = base.to(backend_device)
    found = stacks.sorted_mean(rows, 2, 4, base=origin, backend=backend)
    np.testing.assert_array_equal(found.cpu().numpy(), expected)
    into = stacks.sorted_mean(rows, 2, 4, base=origin, out=rows[3], backend=backend)
    assert into is rows[3]
    np.testing.assert_array_equal(into.cpu().numpy(), expected)


def test_strided_clients_have_sorted_means_on_every_backend(generator, backend, backend_device):
    stack = torch.randn(7, 9, generator=generator)
    wide = stack.T.contiguous().to(backend_device)
    found = stacks.sorted_mean(wide.T, 1, 6, backend=backend)
    np.testing.assert_array_equal(found.cpu().numpy(), by_numpy(stack.numpy(), 1, 6))


def test_bits_depend_on_neither_level_nor_threads_nor_order(generator, native):
    stack, base = odd(generator, 57, 3001), torch.randn(3001, generator=generator)
    honest = odd(generator, 11, 200_001, wild=False)
    order = torch.randperm(57, generator=generator)
    seen, threads = set(), torch.get_num_threads()
    try:
        for level in native.simd_levels():
            native.set_simd_level(level)
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                for rows in (stack, stack[order]):
                    mean = stacks.sorted_mean(rows, 10, 40, base=base, backend="native")
                    distances = stacks.squared_distances(honest, "native")
                    norms = stacks.squared_distances_from(honest, honest[0], honest[1], "native")
                    seen.add((mean.numpy().tobytes(), distances.numpy().tobytes(), norms.numpy().tobytes()))
    finally:
        torch.set_num_threads(threads)
    assert len(seen) == 1


@examples(30)
@given(st.integers(1, 40), st.integers(1, 70), st.data(), st.integers(0, 2**32 - 1))
def test_means_of_any_places_of_random_bits(clients, size, data, seed):
    bits = np.random.default_rng(seed).integers(0, 2**32, (clients, size), dtype=np.uint32)
    changes = bits.view("f4")
    first = data.draw(st.integers(0, clients - 1))
    last = data.draw(st.integers(first + 1, clients))
    found = stacks.sorted_mean(torch.from_numpy(changes), first, last)
    np.testing.assert_array_equal(found.numpy(), by_numpy(changes, first, last))


@pytest.mark.parametrize(("clients", "size"), [(1, 5), (2, 1), (3, 513), (6, 1025), (9, 70_001), (4, 0)])
def test_distances_and_norms_equal_float64(generator, backend, backend_device, clients, size):
    if backend == "triton" and backend_device == "cpu":
        size = min(size, 70)
    stack = 100 + 1e-3 * torch.randn(clients, size, generator=generator)
    base, centre = stack.mean(0), 1e-3 * torch.randn(size, generator=generator)
    wide, given = stack.double().numpy(), stack.to(backend_device)
    exact = ((wide[:, None] - wide[None]) ** 2).sum(axis=2)
    found = stacks.squared_distances(given, backend)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), exact, rtol=1e-13)
    for middle in (None, centre):
        origin = base.double() if middle is None else base.double() + middle.double()
        exact = ((wide - origin.numpy()) ** 2).sum(axis=1)
        moved = None if middle is None else middle.to(backend_device)
        norms = stacks.squared_distances_from(given, base.to(backend_device), moved, backend)
        np.testing.assert_allclose(norms.numpy(), exact, rtol=1e-13)


def test_equal_clients_have_equal_distances_to_the_bit(generator, backend, backend_device):
    size = 130 if backend == "triton" and backend_device == "cpu" else 1300
    stack = torch.randn(13, size, generator=generator)
    stack[11] = stack[6] = stack[1]
    found = stacks.squared_distances(stack.to(backend_device), backend)
    assert torch.equal(found, found.T)
    assert found.diagonal().tolist() == [0.0] * 13
    others = [place for place in range(13) if place not in (1, 6, 11)]
    assert torch.equal(found[1, others], found[6, others])
    assert torch.equal(found[1, others], found[11, others])
    assert found[1, 6] == found[6, 11] == 0


def test_distances_have_the_same_bits_whichever_clients_are_chosen(generator, backend, backend_device):
    size = 90 if backend == "triton" and backend_device == "cpu" else 1500
    stack = torch.randn(11, size, generator=generator).to(backend_device)
    whole = stacks.squared_distances(stack, backend)
    for chosen in ([], [7], [10, 0], [3, 9, 1, 2, 8, 5], [*reversed(range(11))]):
        assert torch.equal(stacks.squared_distances(stack, backend, chosen=chosen), whole[chosen])


SPREADS = {
    "usual": lambda rows: rows,
    "cancelling": lambda rows: 100 + 1e-3 * rows,
    "squares below float32": lambda rows: 1e-23 * rows,
    "squares about float32's smallest": lambda rows: rows * torch.logspace(-25, -15, rows.shape[1]),
    "squares above float32": lambda rows: (
        rows.clamp(-1, 1) * torch.tensor([[1.0], [1.0], [1e21], [3e38], [-3e38]])
    ),
    "sums above float32": lambda rows: 4e18 * rows,
}


@pytest.mark.parametrize("spread", SPREADS)
def test_bounds_contain_the_distances_on_every_level(generator, native, spread):
    threads = torch.get_num_threads()
    for size in (1, 15, 1023, 1025, 70_001, 200_003):
        stack = SPREADS[spread](torch.randn(5, size, generator=generator))
        exact = stacks.squared_distances(stack, "native")
        for level in native.simd_levels():
            native.set_simd_level(level)
            seen = set()
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                lower, upper = stacks.squared_distance_bounds(stack, "native")
                seen.add((lower.numpy().tobytes(), upper.numpy().tobytes()))
            torch.set_num_threads(threads)
            assert len(seen) == 1
            assert (lower <= exact).all()
            assert (exact <= upper).all()
            assert not lower.diagonal().any()
            assert not upper.diagonal().any()
            if spread in ("usual", "cancelling"):
                assert (upper - lower <= 5e-6 * exact).all()
            known = upper < torch.inf
            assert (lower[~known] == 2.0**127).all()
            if spread == "squares above float32" or (spread == "sums above float32" and size > 1000):
                assert not known.all()
            elif spread != "sums above float32":
                assert known.all()


def test_bounds_are_not_a_number_where_distances_are_not(generator, native):
    stack = odd(generator, 9, 600)
    stack[5] = stack[6] = torch.inf
    exact = stacks.squared_distances(stack, "native")
    assert exact.isnan().any()
    assert exact.isinf().any()
    for level in native.simd_levels():
        native.set_simd_level(level)
        for bound in stacks.squared_distance_bounds(stack, "native"):
            assert torch.equal(bound.isnan(), exact.isnan())
        lower, upper = stacks.squared_distance_bounds(stack, "native")
        assert ((lower <= exact) & (exact <= upper) | exact.isnan()).all()


def test_strided_vectors_and_an_output_that_is_an_input(generator):
    wide = torch.randn(64, 9, generator=generator)
    columns = wide.T
    expected = reference_mean(columns.contiguous(), 2, 7)
    assert torch.equal(stacks.sorted_mean(columns, 2, 7), expected)
    torch.testing.assert_close(
        stacks.squared_distances(columns),
        reference.squared_distances(list(columns), range(9)),
        rtol=1e-13,
        atol=0,
    )
    rows = list(columns.contiguous())
    assert torch.equal(stacks.sorted_mean(rows, 2, 7, out=rows[3]), expected)
    assert torch.equal(rows[3], expected)


def reference_mean(rows, first, last):
    out = torch.empty(rows.shape[1])
    reference.sorted_mean(out, list(rows), None, first, last)
    return out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda rows: stacks.sorted_mean(rows, 2, 2),
            r"first: got \(2, 2\); expected 0 <= first < last <= 3",
        ),
        (lambda rows: stacks.sorted_mean(rows, 0, 4), "the number of clients"),
        (lambda rows: stacks.sorted_mean(rows, 0.5, 2), "first: got 0.5; expected a whole number"),
        (lambda rows: stacks.sorted_mean(rows, 0, None), "last: got None; expected a whole number"),
        (lambda rows: stacks.squared_distances(rows, chosen=[1.0]), "chosen: got 1.0; expected a whole"),
        (lambda rows: stacks.sorted_mean(rows.double(), 0, 1), r"clients\[0\].dtype: got 'torch.float64'"),
        (lambda rows: stacks.sorted_mean(rows, 0, 1, base=torch.ones(4)), "base: got"),
        (
            lambda rows: stacks.sorted_mean(list(rows), 0, 1, out=rows.view(-1)[2:7]),
            r"clients\[0\].*overlaps",
        ),
        (lambda rows: stacks.squared_distances([rows[0], rows[1, :3]]), r"clients\[1\]: got"),
        (lambda rows: stacks.squared_distances(rows, chosen=[0, 3]), "different places from 0 to 2"),
        (lambda rows: stacks.squared_distances(rows, chosen=[1, 1]), r"chosen: got \[1, 1\]"),
        (lambda rows: stacks.squared_distances_from(rows, rows[0], rows[0, :2]), "centre: got"),
        (lambda rows: stacks.squared_distances_from([], rows[0]), "at least one client"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.randn(3, 5))


def test_places_may_be_whole_numbers_of_any_type(generator, backend, backend_device):
    rows = torch.randn(5, 9, generator=generator).to(backend_device)
    found = stacks.sorted_mean(rows, np.int64(1), torch.tensor(4), backend=backend)
    assert torch.equal(found, stacks.sorted_mean(rows, 1, 4, backend=backend))
    found = stacks.squared_distances(rows, backend, chosen=[np.int64(3)])
    assert torch.equal(found, stacks.squared_distances(rows, backend, chosen=[3]))
