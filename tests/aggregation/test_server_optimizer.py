"""Server optimizers, compared with the papers' formulas in NumPy float64, layer by layer."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast.aggregation import server_optimizer
from fedtlu_fast.config import AggregationConfig

OFFSETS = torch.tensor([0, 5, 5, 12, 13, 40])
NAMES = ("none", "momentum", "adam")


def made(name, **settings):
    return AggregationConfig(server_optimizer=name, **settings).server_optimizer


def by_definition(name, changes, masks, **given):
    """Returns the steps of several rounds; 0 for layers that are not applied."""
    chosen = {"momentum": 0.9, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3, **given}
    size = changes.shape[1]
    m, v = np.zeros(size), np.zeros(size) if name == "momentum" else np.full(size, chosen["tau"] ** 2)
    steps = []
    for change, mask in zip(changes.double().numpy(), masks, strict=True):
        step = np.zeros(size)
        for layer in np.flatnonzero(mask):
            own = slice(OFFSETS[layer], OFFSETS[layer + 1])
            if name == "momentum":
                m[own] = chosen["momentum"] * m[own] + change[own]
                step[own] = m[own]
            else:
                m[own] = chosen["beta1"] * m[own] + (1 - chosen["beta1"]) * change[own]
                v[own] = chosen["beta2"] * v[own] + (1 - chosen["beta2"]) * change[own] ** 2
                step[own] = m[own] / (np.sqrt(v[own]) + chosen["tau"])
        steps.append(step)
    return steps


def masks_of(generator, rounds):
    return torch.rand(rounds, len(OFFSETS) - 1, generator=generator) < 0.6


@pytest.mark.parametrize("piece", [3, server_optimizer.PIECE])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("momentum", {}),
        ("momentum", {"momentum": 0.0}),
        ("adam", {}),
        ("adam", {"beta1": 0.5, "beta2": 0.0, "tau": 0.1}),
    ],
)
def test_equals_the_papers_formulas_over_rounds(generator, monkeypatch, name, given, piece):
    monkeypatch.setattr(server_optimizer, "PIECE", piece)
    changes = 1e-2 * torch.randn(6, 40, generator=generator)
    masks = masks_of(generator, 6)
    optimizer, state = made(name, **{f"server_{key}": value for key, value in given.items()}), {}
    expected = by_definition(name, changes, masks.numpy(), **given)
    for change, mask, own in zip(changes, masks, expected, strict=True):
        before = change.clone()
        step, state = optimizer.step(change, state, OFFSETS, mask)
        applied = torch.repeat_interleave(mask, OFFSETS.diff())
        np.testing.assert_allclose(step[applied], own[applied], rtol=2e-6, atol=1e-7)  # a float32 state
        assert torch.equal(change, before)
    assert len(state) == optimizer.vectors


def test_without_an_optimizer_the_step_is_the_change(generator):
    change = torch.randn(40, generator=generator)
    step, state = made("none").step(change, {}, OFFSETS, torch.ones(5, dtype=torch.bool))
    assert step is change
    assert state == {}
    assert made("none").vectors == 0


def test_adam_s_first_step_begins_at_tau_squared_and_is_not_corrected():
    step, state = made("adam").step(
        torch.full((40,), 3e-3), {}, OFFSETS, torch.tensor([True, False, False, False, False])
    )
    assert float(step[0]) == pytest.approx(0.1 * 3e-3 / ((0.99e-6 + 0.01 * 9e-6) ** 0.5 + 1e-3))
    assert float(state["mean"][0]) == pytest.approx(3e-4)
    assert float(state["square"][39]) == pytest.approx(1e-6), "of a layer that was not applied: as it began"
    assert float(state["mean"][39]) == 0


@examples(40)
@given(st.sampled_from(NAMES[1:]), st.integers(0, 2**32 - 1))
def test_state_of_layers_that_are_not_applied_keeps_its_bits(name, seed):
    generator = torch.Generator().manual_seed(seed)
    optimizer, state = made(name), {}
    for mask in masks_of(generator, 4):
        before = {key: vector.clone() for key, vector in state.items()}
        after = optimizer.step(torch.randn(40, generator=generator), state, OFFSETS, mask)[1]
        kept = ~torch.repeat_interleave(mask, OFFSETS.diff())
        for key, vector in state.items():
            assert torch.equal(vector, before[key]), "what is given is not changed"
            same = vector.view(torch.int32)[kept] == after[key].view(torch.int32)[kept]
            assert same.all()
        state = after


def test_momentum_of_equal_changes_grows_to_their_sum():
    optimizer, state, mask = made("momentum", server_momentum=0.5), {}, torch.ones(5, dtype=torch.bool)
    for expected in (1.0, 1.5, 1.75):
        step, state = optimizer.step(torch.ones(40), state, OFFSETS, mask)
        assert step.tolist() == [expected] * 40


def test_a_change_whose_square_overflows_does_not_stop_adam():
    optimizer, state, mask = made("adam", server_beta2=0.5), {}, torch.ones(5, dtype=torch.bool)
    step, state = optimizer.step(torch.full((40,), 3e30), state, OFFSETS, mask)
    assert step.isfinite().all()
    assert state["square"].isfinite().all()
    for _ in range(200):
        step, state = optimizer.step(torch.full((40,), 1e-2), state, OFFSETS, mask)
    assert float(step[0]) > 0.5, "it moves again as if nothing had been"


def test_pieces_of_layers_and_threads_do_not_change_the_bits(generator, monkeypatch):
    change, mask = torch.randn(40, generator=generator), torch.ones(5, dtype=torch.bool)
    whole = made("adam").step(change, {}, OFFSETS, mask)
    monkeypatch.setattr(server_optimizer, "PIECE", 1)
    parts = made("adam").step(change, {}, OFFSETS, mask)
    assert torch.equal(whole[0], parts[0])
    assert all(torch.equal(whole[1][name], parts[1][name]) for name in ("mean", "square"))
