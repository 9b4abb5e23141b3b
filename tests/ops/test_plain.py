"""Tests the calls that C++ answers without Python's checks: which they are, and that the bits are equal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fedtlu_fast.ops import backends, derived, dispatch, reference
from fedtlu_fast.ops.moments import Moments

native: Any = pytest.importorskip("fedtlu_fast.ops.native", exc_type=ImportError)
if not native.READS_TENSORS:
    pytest.skip("torch before 2.10", allow_module_level=True)

SIZE = 50
CUTS, MASK = torch.tensor([0, 7, 7, 49, SIZE]), torch.tensor([True, False, False, True])
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


def outcomes(dtype: torch.dtype, backend: Any, seed: int) -> list[Tensor]:
    """Runs every operation of a module on the same vectors; returns what they wrote and found."""
    generator = torch.Generator().manual_seed(seed)
    clients = torch.randn(3, SIZE + 2, generator=generator).to(dtype)[:, 1:-1]
    base = torch.randn(SIZE, generator=generator).to(dtype)
    target = torch.randn(SIZE, generator=generator).to(torch.promote_types(dtype, torch.float32))
    weights = torch.rand(3, generator=generator, dtype=torch.float64)
    found = [backend.layer_stats(clients[0], CUTS).rows, backend.layer_stats_list(list(clients)).rows]
    found.append(backend.accumulate_(target, clients[1], base, 0.3, CUTS).rows)
    assert backend.accumulate_(target, clients[2], None, -2.0) is None
    out = torch.empty_like(target)
    for each in (True, False, "norms"):
        for given in (clients, list(clients), tuple(clients)):
            rows = given if backend is native else list(given)
            moments, of_clients = backend.aggregate(out, rows, weights, base, CUTS, each)
            found += [out.clone(), moments.rows]
            if each:
                found.append(of_clients.rows if isinstance(of_clients, Moments) else of_clients)
    backend.masked_apply_(target, clients[0], CUTS, MASK, 0.7)
    return [*found, target]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_and_arrays_give_the_same_bits(
    dtype: torch.dtype, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = generator.initial_seed()
    read = outcomes(dtype, native, seed)
    monkeypatch.setattr(native, "READS_TENSORS", False)
    for one, two in zip(read, outcomes(dtype, native, seed), strict=True):
        assert torch.equal(bits(one), bits(two))
    # What is written is exact, so it has the bits of the reference too.
    assert torch.equal(bits(read[-1]), bits(outcomes(dtype, reference, seed)[-1]))


def test_with_an_older_torch_every_argument_is_checked_and_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "READS_TENSORS", False)
    assert backends.reader("auto", CUTS) is None
    strided = torch.arange(2.0 * SIZE)[::2]
    found = dispatch.layer_stats(strided, CUTS, "native")
    assert torch.equal(found.rows, reference.layer_stats(strided, CUTS).rows)


VECTOR = torch.ones(SIZE)
NEGATIVE = torch.complex(VECTOR, -VECTOR).conj().imag
ODD: dict[str, Callable[[], Any]] = {
    "strided": lambda: torch.ones(2 * SIZE)[::2],
    "expanded": lambda: torch.ones(1).expand(SIZE),
    "negated": lambda: NEGATIVE.view(SIZE),
    "sparse": VECTOR.to_sparse,
    "an integer": VECTOR.int,
    "complex": lambda: VECTOR.to(torch.complex64),
    "elsewhere": lambda: VECTOR.to("meta"),
    "a matrix": lambda: VECTOR.view(2, -1),
    "a subclass": lambda: VECTOR.as_subclass(type("Own", (torch.Tensor,), {})),
    "a list": VECTOR.tolist,
    "an array": VECTOR.numpy,
    "longer": lambda: torch.ones(SIZE + 1),
    "nothing": lambda: None,
}


@pytest.mark.parametrize("kind", ODD)
def test_arguments_that_are_not_plain_are_left_to_the_checks(kind: str) -> None:
    odd = ODD[kind]()
    target, out = torch.zeros(SIZE), torch.zeros(SIZE)
    calls = [
        lambda: native.accumulate_(target, odd, None, 1.0),
        lambda: native.accumulate_(odd, VECTOR, None, 1.0),
        lambda: native.aggregate(out, [VECTOR, odd], [1.0, 1.0], None, CUTS, False),
        lambda: native.aggregate(odd, [VECTOR], [1.0], None, CUTS, False),
        lambda: native.masked_apply_(target, odd, CUTS, MASK, 1.0),
        lambda: native.masked_apply_(odd, VECTOR, CUTS, MASK, 1.0),
        lambda: native.masked_apply_(target, VECTOR, CUTS, odd, 1.0),
        lambda: native.masked_apply_(target, VECTOR, odd, MASK, 1.0),
        lambda: native.accumulate_(target, VECTOR, None, odd),
        lambda: native.aggregate(out, [VECTOR], odd, None, CUTS, False),
        lambda: native.aggregate(out, [VECTOR], [1.0], None, CUTS, odd),
    ]
    if kind != "longer":
        calls.append(lambda: native.layer_stats(odd, CUTS))
    if kind != "nothing":
        calls.append(lambda: native.accumulate_(target, VECTOR, odd, 1.0))
    if kind not in ("longer", "a matrix"):
        calls.append(lambda: native.layer_stats_list([VECTOR, odd]))
    for call in calls:
        with pytest.raises(native.NotPlainError):
            call()
    assert not target.any()
    assert not out.any()


@pytest.mark.parametrize(
    "offsets", [[-1, SIZE], [0, 9, 8, SIZE], [0, SIZE + 1], [], [[0, SIZE]], [0.0, SIZE], [2**63 - 1, 0]]
)
def test_offsets_that_are_no_bounds_are_left_to_the_checks(offsets: list[Any]) -> None:
    with pytest.raises(native.NotPlainError):
        native.layer_stats(VECTOR, torch.tensor(offsets, dtype=None if offsets else torch.int64))


def test_offsets_that_changed_in_place_are_noticed() -> None:
    offsets = torch.tensor([0, 10, SIZE])
    values = torch.arange(float(SIZE))
    assert dispatch.layer_stats(values, offsets).count.tolist() == [10, 40]
    offsets.numpy()[1] = 20  # without a new version of the tensor
    assert dispatch.layer_stats(values, offsets).count.tolist() == [20, 30]
    offsets.numpy()[1] = SIZE + 1
    with pytest.raises(ValueError, match="offsets"):
        dispatch.layer_stats(values, offsets)


def test_a_list_that_shrinks_meanwhile_is_read_as_it_was() -> None:
    layers = [torch.full((5000,), 1.0 + index) for index in range(2000)]
    expected, found = [float(layer[0]) for layer in layers], []
    call = threading.Thread(target=lambda: found.append(native.layer_stats_list(layers).mean.tolist()))
    call.start()
    while layers:
        layers.pop()
    call.join()
    # The call saw the whole list, or a shorter one if it began later; never a freed tensor.
    assert found[0] == expected[: len(found[0])]


def test_a_plain_call_checks_nothing_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("readable", "check_flat", "bounds", "check_target", "check_apart", "numbers"):
        monkeypatch.delattr(dispatch.checks, name)
    target, leaf = torch.zeros(SIZE), torch.nn.Parameter(VECTOR.clone())
    version = target._version
    dispatch.accumulate_(target, leaf, VECTOR, 2, offsets=CUTS)
    dispatch.aggregate([VECTOR, VECTOR], (1, 2.0), CUTS, out=target, client_stats=True)
    dispatch.masked_apply_(target, VECTOR, CUTS, MASK, 1.0)
    assert target._version == version + 3
    assert dispatch.layer_stats(leaf, CUTS).count.tolist() == [7, 0, 42, 1]
    assert dispatch.layer_stats_list([leaf, leaf.view(5, 10), torch.tensor(1.0)]).count.tolist() == [
        50,
        50,
        1,
    ]


def test_scores_have_the_same_bits_without_the_extension(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = torch.randint(0, 4, (20_000,), generator=generator).double()
    odd = torch.tensor([0.0, -0.0, torch.nan, torch.inf, -torch.inf, 1e200, 1e-200, 5e-324]).double()

    def draw() -> Tensor:
        """Returns ordinary numbers, and every kind of odd one among them."""
        chosen = odd[torch.randint(0, len(odd), count.shape, generator=generator)]
        plain = torch.randn(count.shape, generator=generator, dtype=torch.float64)
        return torch.where(torch.rand(count.shape, generator=generator) < 0.3, chosen, plain)

    rows = torch.stack([count, draw(), draw().abs(), draw().abs(), (draw() > 1).double()])

    def results() -> list[Tensor]:
        std, l2 = derived.spread(Moments(rows))
        matrix = derived.spread(Moments(rows.view(5, 4, -1)))
        scores = [derived.score(count, rows[1], std, rows[4], ddof) for ddof in (0, 1)]
        return [std, l2, matrix.flatten(), *(part.double() for pair in scores for part in pair)]

    compiled = results()
    monkeypatch.setattr(derived, "reader", lambda *_: None)
    for one, two in zip(compiled, results(), strict=True):
        assert torch.equal(one.isnan(), two.isnan())
        assert torch.equal(bits(one.nan_to_num(7)), bits(two.nan_to_num(7)))
