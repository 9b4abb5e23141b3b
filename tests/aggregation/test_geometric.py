"""The geometric median, compared with the algorithm in NumPy float64; the influence of a minority."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.rules import aggregated
from support.sampling import examples

from fedtlu_fast.aggregation import GeometricMedian
from fedtlu_fast.testing import check_rule


def by_definition(changes, weights, iterations, smoothing=1e-6):
    wide, mean = changes.double().numpy(), np.zeros(changes.shape[1])
    for iteration in range(iterations):
        distances = np.linalg.norm(wide - mean, axis=1)
        middle = np.sort(np.repeat(distances, weights))[(sum(weights) - 1) // 2]
        near = weights / np.maximum(smoothing if iteration else max(smoothing, middle), distances)
        mean = near @ wide / near.sum()
    return mean


@pytest.mark.parametrize("iterations", [1, 3, 7])
@pytest.mark.parametrize("clients", [1, 2, 9])
def test_equals_the_algorithm(generator, tmp_path, backend, backend_device, iterations, clients):
    base = torch.randn(117, generator=generator)
    stack = base + torch.randn(clients, 117, generator=generator)
    samples = list(range(3, 3 + clients))
    expected = by_definition(stack.double() - base.double(), np.array(samples), iterations)
    found = [
        aggregated(
            GeometricMedian(iterations, spill=spill),
            base.to(backend_device),
            stack.to(backend_device),
            samples,
            backend=backend,
        ).change.cpu()
        for spill in (None, str(tmp_path))
    ]
    np.testing.assert_allclose(found[0].double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(*found)


def test_many_iterations_find_the_point_with_the_smallest_sum_of_distances(generator):
    stack = torch.randn(8, 12, generator=generator)
    found = aggregated(GeometricMedian(200), torch.zeros(12), stack).change
    away = found.double() - stack.double()
    units = away / away.norm(dim=1, keepdim=True)
    assert units.sum(dim=0).norm() < 1e-4, "the gradient of the sum is zero there"
    assert away.norm(dim=1).sum() < min((one - stack).norm(dim=1).sum() for one in stack)


@pytest.mark.parametrize("idle", [1, 4])
def test_clients_that_send_no_change_do_not_stop_the_others(idle):
    stack = torch.tensor([[1.0, -2.0]] * 10)
    stack[10 - idle :] = 0
    found = aggregated(GeometricMedian(), torch.zeros(2), stack).change
    assert (found - stack[0]).norm() < 0.3 * stack[0].norm()


def test_no_client_and_clients_without_weight_change_nothing():
    base = torch.ones(4)
    assert aggregated(GeometricMedian(), base, []).change.tolist() == [0.0] * 4
    assert aggregated(GeometricMedian(), base, torch.randn(3, 4), (0, 0, 0)).change.tolist() == [0.0] * 4
    assert aggregated(GeometricMedian(), base, base.expand(3, -1)).change.tolist() == [0.0] * 4


WILD = st.floats(-(2.0**100), 2.0**100, width=32)


@examples(60)
@given(st.integers(1, 4), st.integers(1, 6), st.data(), st.integers(0, 2**32 - 1))
def test_a_minority_of_arbitrary_vectors_moves_it_no_further_than_the_bound(wild, iterations, data, seed):
    honest = torch.randn(wild + 1, 5, generator=torch.Generator().manual_seed(seed))
    drawn = data.draw(st.lists(st.lists(WILD, min_size=5, max_size=5), min_size=wild, max_size=wild))
    stack = torch.cat([honest, torch.tensor(drawn)])[data.draw(st.permutations(range(2 * wild + 1)))]
    largest, share = float(honest.norm(dim=1).max()), (wild + 1) / (2 * wild + 1)
    found = float(aggregated(GeometricMedian(iterations), torch.zeros(5), stack).change.norm())
    assert found <= largest * ((1 + 1 / share) ** iterations - 1) * (1 + 1e-6)
    settled = float(aggregated(GeometricMedian(60), torch.zeros(5), stack).change.norm())
    assert settled <= 2 * share / (2 * share - 1) * largest * 1.01


@pytest.mark.parametrize("attack", [1.0, -1.0, 1e3, -1e30])
def test_a_third_that_colludes_moves_it_less_than_the_mean(generator, attack):
    honest = 0.3 + 0.05 * torch.randn(14, 60, generator=generator)
    stack = torch.cat([honest, torch.full((6, 60), attack)])
    centre = honest.mean(dim=0)
    moved = aggregated(GeometricMedian(), torch.zeros(60), stack).change - centre
    assert moved.norm() < 2 * centre.norm()
    assert moved.norm() < (stack.double().mean(dim=0) - centre).norm()


def test_keeps_the_promises_of_a_rule():
    check_rule("geometric_median")
    check_rule(GeometricMedian(5, max_share=0.3), cohort=4)
