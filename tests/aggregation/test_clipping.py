"""Norm clipping, compared with NumPy float64: with a given bound, and with the median of the norms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.rules import aggregated
from support.sampling import examples

from fedtlu_fast.aggregation import Mean, NormClip, Start
from fedtlu_fast.aggregation.clipping import change_norm, clipping


def made(base, clients, samples, clip=None, spill=None, backend="auto"):
    found = aggregated(NormClip(clip, spill=spill), base, clients, samples, len(clients) + 2, backend)
    assert found.kept is None
    return found.change


def by_definition(base, clients, samples, clip=None):
    changes = (clients.double() - base.double()).numpy()
    norms = np.sqrt((changes**2).sum(axis=1))
    bound = np.median(norms) if clip is None else clip
    clipped = changes / np.maximum(1, norms / bound)[:, None]
    return np.average(clipped, axis=0, weights=samples)


@pytest.mark.parametrize("clip", [0.7, 3.0, 1e9, None])
@pytest.mark.parametrize("clients", [1, 2, 7])
def test_equals_the_definition(generator, tmp_path, backend, backend_device, clip, clients):
    base = torch.randn(117, generator=generator)
    sizes = torch.logspace(-2, 1, clients)[:, None]
    stack = base + sizes * torch.randn(clients, 117, generator=generator)
    samples = list(range(3, 3 + clients))
    start, vectors = base.to(backend_device), stack.to(backend_device)
    found = made(start, vectors, samples, clip, backend=backend)
    expected = by_definition(base, stack, samples, clip)
    np.testing.assert_allclose(found.cpu().double(), expected, rtol=1e-5, atol=1e-6)
    spilled = made(start, vectors, samples, clip, spill=str(tmp_path), backend=backend)
    assert torch.equal(spilled, found)
    assert torch.equal(base, start.cpu())


def test_a_bound_that_no_client_reaches_gives_fedavg_to_the_bit(generator):
    base = torch.randn(90, generator=generator)
    stack = base + torch.randn(5, 90, generator=generator)
    mean = aggregated(Mean(), base, stack, (3, 1, 4, 1, 5))
    assert torch.equal(made(base, stack, (3, 1, 4, 1, 5), clip=1e6), mean.change)


@pytest.mark.parametrize("clip", [1.0, None])
def test_no_client_and_clients_that_changed_nothing_change_nothing(clip):
    base = torch.ones(4)
    assert made(base, torch.empty(0, 4), (), clip).tolist() == [0.0] * 4
    assert made(base, base.expand(3, -1), (2, 3, 4), clip).tolist() == [0.0] * 4
    wild = torch.stack([base, base, base + 1])
    assert made(base, wild, (1, 1, 1)).tolist() == [0.0] * 4, "the median norm is 0, and so is all above it"


def test_one_wild_client_moves_the_mean_no_further_than_its_share(generator):
    stack = 0.01 * torch.randn(9, 50, generator=generator)
    honest = by_definition(torch.zeros(50), stack, [1] * 9, 0.05)
    stack[4] = torch.finfo(torch.float32).max
    moved = made(torch.zeros(50), stack, [1] * 9, clip=0.05).double().numpy() - honest
    assert np.linalg.norm(moved) <= 2 * 0.05 / 9 * (1 + 1e-6)
    assert made(torch.zeros(50), stack, [1] * 9).abs().max() < 0.1


SIZES = st.floats(0, 2.0**100, width=32)


@examples(60)
@given(SIZES, st.floats(1e-20, 1e30), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_clipping_never_increases_a_norm_and_holds_the_bound(size, clip, numbers, seed):
    change = size * torch.randn(numbers, generator=torch.Generator().manual_seed(seed))
    before = float(change.double().norm())
    after = float(made(torch.zeros(numbers), change[None], (3,), clip).double().norm())
    room = 1 + 1e-6
    assert after <= before * room
    assert after <= clip * room
    if before <= clip:
        torch.testing.assert_close(made(torch.zeros(numbers), change[None], (1,), clip), change)


@examples(40)
@given(st.integers(1, 8), st.data(), st.integers(0, 2**32 - 1))
def test_the_clients_order_does_not_matter(clients, data, seed):
    stack = torch.randn(clients, 6, generator=torch.Generator().manual_seed(seed))
    samples = data.draw(st.lists(st.integers(1, 99), min_size=clients, max_size=clients))
    order = data.draw(st.permutations(range(clients)))
    for clip in (1.5, None):
        one = made(torch.zeros(6), stack, samples, clip)
        other = made(torch.zeros(6), stack[order], [samples[place] for place in order], clip)
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # in Triton's interpreter
def test_norms_are_right_if_float32_overflows_or_cancels(generator, backend, backend_device):
    base = 100 + torch.randn(3001, generator=generator)
    client = base + 1e-4 * torch.randn(3001, generator=generator)
    exact = float((client.double() - base.double()).norm())
    norm = change_norm(base.to(backend_device), client.to(backend_device), backend)
    assert norm == pytest.approx(exact, rel=1e-13)
    largest = torch.full((5,), torch.finfo(torch.float32).max, device=backend_device)
    found = change_norm(-largest, largest, backend)
    assert found == pytest.approx(2 * float(largest[0]) * 5**0.5)


def test_factor():
    assert clipping(0.0, 1.0) == clipping(1.0, 1.0) == clipping(0.0, 0.0) == 1.0
    assert clipping(4.0, 1.0) == 0.25
    assert clipping(4.0, 0.0) == 0.0


@pytest.mark.parametrize("clip", [1.0, None])
def test_a_sum_of_clients_is_refused(clip):
    rule = NormClip(clip)
    assert not rule.takes_sums
    with pytest.raises(NotImplementedError, match="NormClip needs the vector of every client"):
        rule.add_sum(rule.start(Start(torch.zeros(3), 5)), 5, torch.zeros(3))
