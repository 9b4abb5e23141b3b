"""Centered clipping, compared with NumPy float64 over several rounds; the influence of a minority."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.rules import aggregated
from support.sampling import examples

from fedtlu_fast.aggregation import CenteredClipping, NormClip, Start
from fedtlu_fast.testing import check_rule


def round_of(rule, base, stack, memory, backend="auto"):
    state = rule.start(Start(base, len(stack) + 2, backend, memory=memory))
    for client, vector in enumerate(stack):
        state = rule.add(state, client, 5.0, vector.clone())
    return rule.finish(state)


def by_definition(changes, centre, clip, iterations):
    for _ in range(iterations):
        away = changes - centre
        norms = np.linalg.norm(away, axis=1)
        bound = np.median(norms) if clip is None else clip
        centre = centre + (away * np.minimum(1, bound / norms)[:, None]).mean(axis=0)
    return centre


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("clip", [0.5, 1e9, None])
def test_three_rounds_equal_the_definition(generator, tmp_path, backend, backend_device, clip, iterations):
    base = torch.randn(57, generator=generator).to(backend_device)
    for spill in (None, str(tmp_path)):
        rule = CenteredClipping(clip, iterations, spill)
        memory, centre = {}, np.zeros(57)
        for _ in range(3):
            stack = base.cpu() + torch.logspace(-2, 1, 6)[:, None] * torch.randn(6, 57, generator=generator)
            found = round_of(rule, base, stack.to(backend_device), memory, backend)
            centre = by_definition((stack.double() - base.cpu().double()).numpy(), centre, clip, iterations)
            np.testing.assert_allclose(found.change.cpu().double(), centre, rtol=1e-4, atol=1e-5)
            assert torch.equal(found.memory["centre"], found.change)
            memory = found.memory


def test_the_first_round_is_a_mean_of_clipped_changes(generator):
    base = torch.randn(40, generator=generator)
    stack = base + torch.randn(5, 40, generator=generator)
    clipped = aggregated(NormClip(2.0), base, stack).change
    torch.testing.assert_close(aggregated(CenteredClipping(2.0), base, stack).change, clipped)


def test_no_client_changes_nothing_and_remembers_nothing(generator):
    found = round_of(CenteredClipping(1.0), torch.ones(4), [], {"centre": torch.ones(4)})
    assert (found.change.tolist(), dict(found.memory)) == ([0.0] * 4, {})


WILD = st.floats(-(2.0**100), 2.0**100, width=32)


@examples(60)
@given(st.integers(1, 4), st.integers(1, 6), st.data(), st.integers(0, 2**32 - 1))
def test_a_minority_of_arbitrary_vectors_moves_it_no_further_than_their_share(wild, honest, data, seed):
    """One iteration: each vector's part is at most `clip` long, whatever it is."""
    draws = torch.Generator().manual_seed(seed)
    stack, centre = torch.randn(honest + wild, 5, generator=draws), torch.randn(5, generator=draws)
    rule = CenteredClipping(0.7)
    before = round_of(rule, torch.zeros(5), stack, {"centre": centre}).change
    drawn = data.draw(st.lists(st.lists(WILD, min_size=5, max_size=5), min_size=wild, max_size=wild))
    stack[honest:] = torch.tensor(drawn)
    after = round_of(rule, torch.zeros(5), stack, {"centre": centre}).change
    assert float((after - before).norm()) <= 2 * 0.7 * wild / (honest + wild) * (1 + 1e-4)
    assert float((after - centre).norm()) <= 0.7 * (1 + 1e-4)


def test_attackers_cannot_drive_it_away_over_many_rounds(generator):
    """Three of ten send what is far away, each round: the centre stays with the honest clients."""
    target, memory, rule = torch.full((50,), 0.2), {}, CenteredClipping(1.0)
    for _ in range(30):
        honest = target + 0.05 * torch.randn(7, 50, generator=generator)
        found = round_of(rule, torch.zeros(50), torch.cat([honest, torch.full((3, 50), -1e20)]), memory)
        memory = found.memory
    assert (found.change - target).norm() < 0.5 * target.norm()


def test_keeps_the_promises_of_a_rule():
    check_rule("centered_clipping")
    check_rule(CenteredClipping(0.1, 3), cohort=4)
