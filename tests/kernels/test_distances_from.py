"""Tests distances whose sums are kept in pairs of float32, in Triton's interpreter or on a GPU."""

import os
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support.sampling import examples, fresh

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton")

from triton.runtime.errors import InterpreterError  # noqa: E402

from fedtlu_fast.kernels import distances_from, pairs  # noqa: E402
from fedtlu_fast.ops import reference  # noqa: E402
from fedtlu_fast.ops import triton as ops  # noqa: E402

pytestmark = [
    pytest.mark.skipif(DEVICE not in ops.devices(), reason=f"Triton is not live on {DEVICE}"),
    pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning"),  # the interpreter's NumPy
]

SIZE = distances_from.SPAN + 77
BOUND = 7.5e-13


@pytest.fixture(autouse=True)
def in_pairs(monkeypatch):
    monkeypatch.setenv(pairs.VARIABLE, "pairs")


@pytest.fixture
def only_pairs(monkeypatch):
    """Fails a test in which a tile is computed in float64."""
    if DEVICE == "cpu":
        monkeypatch.setattr(distances_from, "_in_float64", None)


def tensor(values):
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(DEVICE)


def normal(*shape):
    return fresh().normal(size=shape)


def exact(client, base, centre):
    """Returns the squared distance without any rounding."""
    vectors = (client, base) if centre is None else (client, base, centre)
    columns = zip(*(vector.tolist() for vector in vectors), strict=True)
    return sum(
        ((Fraction(x) - sum(map(Fraction, origin), Fraction(0))) ** 2 for x, *origin in columns), Fraction(0)
    )


def assert_within_the_bound(clients, base, centre=None):
    found = ops.squared_distances_from(clients, base, centre)
    assert found.dtype == torch.float64
    for client, distance in zip(clients, found.tolist(), strict=True):
        truth = exact(client, base, centre)
        assert abs(Fraction(distance) - truth) <= truth * Fraction(BOUND)
    return found


FAR = {
    "usual": lambda z: (z, np.zeros(SIZE), 0.1 * z[0]),
    "near a point far from zero": lambda z: (100 + 1e-3 * z, np.full(SIZE, 100), 1e-3 * z[0]),
    # The client's element is base + centre rounded: all of the distance is what was rounded away.
    "nearer than float32 can tell": lambda z: (
        np.full_like(z, 1 + 2.0**-23),
        np.ones(SIZE),
        1.5e-7 + 0 * z[0],
    ),
    "of many sizes": lambda z: (z * 10.0 ** (2 * normal(*z.shape)), z[0], 1e3 * z[1]),
    "with elements whose squares vanish": lambda z: (
        np.where(np.arange(SIZE) % 2, z, 1e-30 * z),
        0 * z[0],
        0 * z[1],
    ),
}


@pytest.mark.sweep(quick=3)
@pytest.mark.parametrize("kind", FAR)
def test_the_error_is_within_the_bound(kind, only_pairs):
    clients, base, centre = map(tensor, FAR[kind](normal(3, SIZE)))
    assert_within_the_bound(list(clients), base, centre)
    assert_within_the_bound(list(clients), base)


@examples(10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    clients=st.integers(1, 9),
    size=st.integers(1, 600),
    spread=st.floats(0, 8),
    near=st.floats(-9, 9),
    seed=st.integers(0, 2**32),
)
def test_the_error_of_any_vectors_is_within_the_bound(clients, size, spread, near, seed):
    generator = np.random.default_rng(seed)
    base = generator.normal(size=size) * 10.0 ** generator.uniform(-spread, spread, size)
    away = generator.normal(size=(clients + 1, size)) * 10.0 ** (near + generator.uniform(-spread, 0, size))
    stack, centre = tensor(base + away[:-1]), tensor(away[-1])
    assert_within_the_bound(list(stack), tensor(base), centre)


def test_errors_of_one_sign_are_within_the_bound(only_pairs):
    """Every square, and every sum but few, is rounded to the same side."""
    client = tensor(np.full(SIZE, 1 + 3 * 2.0**-13))
    assert_within_the_bound([client], torch.zeros_like(client))


@pytest.mark.skipif(DEVICE != "cpu", reason="of the interpreter")
def test_the_tests_above_would_see_a_tile_in_float64(only_pairs):
    with pytest.raises(InterpreterError, match="not callable"):
        ops.squared_distances_from([tensor(np.full(5, 1e30))], tensor(np.zeros(5)), None)


HOSTILE = {
    "squares above float32": lambda z: 1e25 * z,
    "differences above float32": lambda z: np.copysign(3e38, z),
    "squares below float32": lambda z: 1e-23 * z,
    "subnormal numbers": lambda z: 1e-40 * z,
    "one number that is not small": lambda z: np.where(np.arange(SIZE) == 5, 1e-15, 1e-22 * z),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_tiles_are_computed_in_float64(kind):
    clients = tensor(HOSTILE[kind](normal(3, SIZE)))
    clients[1] = -clients[0]
    for centre in (None, -clients[2]):
        found = ops.squared_distances_from(list(clients), clients[0], centre)
        expected = reference.squared_distances_from(list(clients), clients[0], centre)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-13, atol=0)
        assert found[0] == 0 or centre is not None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_with_its_client(value):
    clients = tensor(normal(6, SIZE))
    base = tensor(normal(SIZE))
    alone = ops.squared_distances_from(list(clients), base, None)
    clients[2, SIZE - 3] = value
    found = ops.squared_distances_from(list(clients), base, None)
    expected = reference.squared_distances_from(list(clients), base, None)
    assert found.isnan().tolist() == expected.isnan().tolist()
    assert found.isinf().tolist() == expected.isinf().tolist()
    others = [0, 1, 3, 4, 5]
    assert torch.equal(found[others], alone[others])
    base[7] = value
    assert not ops.squared_distances_from(list(clients), base, None).isfinite().any()


def test_clients_at_the_point_have_distance_zero(only_pairs):
    base, centre = tensor(normal(SIZE)), tensor(np.round(normal(SIZE)))
    at = (base.double() + centre.double()).float()
    rest = (base.double() + centre.double() - at.double()).square().sum().item()
    found = ops.squared_distances_from([base, at], base, None)
    assert found[0] == 0
    found = ops.squared_distances_from([at], base, centre)
    assert found.item() == pytest.approx(rest, rel=BOUND)
    assert rest > 0


@pytest.mark.parametrize("choice", ["pairs", "float64"])
def test_bits_do_not_depend_on_the_other_clients(monkeypatch, choice):
    monkeypatch.setenv(pairs.VARIABLE, choice)
    clients, base = tensor(normal(7, SIZE)), tensor(normal(SIZE))
    clients[3] *= 1e-30
    for centre in (None, tensor(normal(SIZE))):
        found = ops.squared_distances_from(list(clients), base, centre)
        for places in ([0], [4, 3], [6, 5, 1], [2, 0, 1, 4, 3]):
            some = ops.squared_distances_from([clients[place] for place in places], base, centre)
            assert torch.equal(some, found[places])


@pytest.mark.parametrize("choice", ["pairs", "float64"])
def test_vectors_lie_anywhere(monkeypatch, choice):
    monkeypatch.setenv(pairs.VARIABLE, choice)
    memory = tensor(normal(3, SIZE + 3))
    base, clients = memory[0, 1 : SIZE + 1], [memory[1, 2 : SIZE + 2], memory[2, 3:]]
    found = ops.squared_distances_from(clients, base, None)
    expected = reference.squared_distances_from(clients, base, None)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=BOUND)
