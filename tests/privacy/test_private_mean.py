"""Clipping and noise of the private mean: norms, variances, divisors, and a clipping norm that adapts."""

from math import exp, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples
from torch import nn

from fedtlu_fast import InputError, ParameterLayout
from fedtlu_fast.client_steps import ClientSteps, RunFacts
from fedtlu_fast.client_steps.step import ClientContext, RoundChange, ServerContext
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.data.population import Samples
from fedtlu_fast.part_memory import PartMemory
from fedtlu_fast.privacy.private_mean import BELOW, CLIP, PrivateMean, Quantile, clipped
from fedtlu_fast.testing import check_client_step

WIDE = nn.Sequential(*(nn.Linear(64, 64) for _ in range(5)))
LAYOUT = ParameterLayout.from_module(WIDE)
FACTS = RunFacts(LAYOUT, seed=3)
NOTHING = torch.empty(0)


def norm(vector):
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))


def completed(step, change, weight, index=1, memory=None, news=None, empty=False, seed=3):
    facts = RunFacts(LAYOUT, seed=seed)
    base = torch.zeros(LAYOUT.size)
    half = step.server_half(ServerContext(facts, index, base, NOTHING, memory=memory or PartMemory({})))
    given = RoundChange(change, NOTHING, empty=empty, memory=news or {}, weight=weight)
    return half.complete(given), half


@examples(60)
@given(
    st.floats(1e-6, 1e4),
    st.floats(1e-4, 10.0),
    st.floats(0, 100.0),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_no_change_is_longer_than_the_clipping_norm_however_it_is_rounded(size, clip, level, blocks, seed):
    draws = torch.Generator().manual_seed(seed)
    base = level * torch.randn(LAYOUT.size, generator=draws)
    params = base + size * torch.randn(LAYOUT.size, generator=draws)
    given = params.clone()
    found, before = clipped(base, params, LAYOUT, clip, blocks)
    change = found - base
    assert torch.equal(params, given)
    assert before == norm(params - base)
    assert norm(change) <= clip * (1 + 1e-12)
    if blocks:
        for block in range(len(LAYOUT.blocks)):
            own = torch.cat([change[run] for run in LAYOUT.runs({block})])
            assert norm(own) <= clip / sqrt(len(LAYOUT.blocks)) * (1 + 1e-12)
    elif before <= clip:
        assert torch.equal(found, params)
    elif level == 0:  # without rounding of the parameters the direction stays, and the norm is nearly used up
        assert norm(change) == pytest.approx(clip, rel=1e-5)
        torch.testing.assert_close(change / norm(change), (params - base) / before, rtol=1e-4, atol=1e-6)


def test_a_short_block_keeps_its_change_where_each_block_is_clipped():
    base, params = torch.zeros(LAYOUT.size), torch.zeros(LAYOUT.size)
    long, short = LAYOUT.runs({0})[0], LAYOUT.runs({1})[0]
    params[long], params[short] = 100.0, 1e-4
    found, _ = clipped(base, params, LAYOUT, 1.0, per_block=True)
    assert torch.equal(found[short], params[short])
    whole, _ = clipped(base, params, LAYOUT, 1.0)
    assert norm(whole[short]) < norm(params[short]) / 100


def test_the_noise_of_the_server_has_its_variance_and_is_new_in_every_round():
    step = PrivateMean(noise_multiplier=2.0, cohort=10, clip=0.5)
    change = torch.full((LAYOUT.size,), 0.25)
    rounds = [completed(step, change, 8.0, index)[0].change for index in range(1, 9)]
    noise = torch.stack(rounds).double() - 0.25 * 8 / 10  # the sum of eight clients is divided by ten
    count = noise.numel()
    assert abs(float(noise.mean())) < 5 * 0.1 / sqrt(count)
    assert float(noise.std()) == pytest.approx(2.0 * 0.5 / 10, rel=5 / sqrt(2 * count))
    together = torch.corrcoef(noise) - torch.eye(8)
    assert float(together.abs().max()) < 5 / sqrt(LAYOUT.size)
    half = LAYOUT.size // 2
    halves = torch.corrcoef(torch.stack([noise[:, :half].flatten(), noise[:, -half:].flatten()]))
    assert abs(float(halves[0, 1])) < 5 / sqrt(count / 2)
    assert torch.equal(completed(step, change, 8.0, 1)[0].change, rounds[0])
    assert not torch.equal(completed(step, change, 8.0, 1, seed=4)[0].change, rounds[0])


def test_a_round_without_clients_publishes_noise_like_any_other():
    step = PrivateMean(noise_multiplier=1.0, cohort=4)
    found, _ = completed(step, torch.zeros(LAYOUT.size), 0.0, empty=True)
    assert not found.empty
    assert float(found.change.std()) == pytest.approx(0.25, rel=0.1)
    without, _ = completed(
        PrivateMean(noise_multiplier=0.0, cohort=4), torch.zeros(LAYOUT.size), 0.0, empty=True
    )
    assert without.empty
    assert not without.change.any()


def sent(step, number, change, memory=None):
    base = torch.zeros(LAYOUT.size)
    start = ClientStart(base, NOTHING, Samples((torch.zeros(1, 1), torch.zeros(1, 1)), np.arange(1)))
    context = ClientContext(FACTS, number, 1, base, NOTHING, server=memory or {}, start=start)
    return step.after(context, ClientUpdate(change.clone(), NOTHING, 7, 1, 0.5))


def test_shares_of_the_clients_sum_to_the_noise_of_the_server():
    step = PrivateMean(noise_multiplier=2.0, cohort=16, clip=0.5, noise="clients")
    shares = torch.stack([sent(step, client, torch.zeros(LAYOUT.size)).params for client in range(16)])
    assert float(shares.sum(dim=0).std()) == pytest.approx(1.0, rel=0.05)
    assert float((torch.corrcoef(shares) - torch.eye(16)).abs().max()) < 5 / sqrt(LAYOUT.size)
    whole, _ = completed(step, shares.mean(dim=0), 16.0)
    assert torch.equal(whole.change, shares.mean(dim=0))
    for arrived in (0, 4, 15):
        mean = shares[:arrived].mean(dim=0) if arrived else torch.zeros(LAYOUT.size)
        topped, _ = completed(step, mean, float(arrived), empty=not arrived)
        assert not topped.empty
        assert float(topped.change.std()) == pytest.approx(1 / 16, rel=0.05)


def test_every_client_weighs_the_same_and_unsound_ones_send_nothing_that_is_not_clipped():
    step = PrivateMean(noise_multiplier=1.0, cohort=2)
    assert sent(step, 0, torch.zeros(LAYOUT.size)).weight == 1.0
    spoilt = torch.full((LAYOUT.size,), 1000.0)
    spoilt[0] = torch.nan  # a client that sends chosen blocks may cut this number off
    assert sent(step, 0, spoilt).params.isnan().all()


def test_the_clipping_norm_follows_the_quantile():
    step = PrivateMean(noise_multiplier=0.0, cohort=4, clip=2.0, adapts=Quantile(0.5, lr=0.2))
    bits = {client: {BELOW: np.array([float(client < 3)], np.float32)} for client in range(4)}
    _, half = completed(step, torch.zeros(LAYOUT.size), 4.0, news=bits)
    assert half.server is not None
    # Three of four are below, a quarter more than wanted.
    assert float(half.server[CLIP]) == pytest.approx(2.0 * exp(-0.2 * 0.25), rel=1e-6)
    held = PartMemory({CLIP: torch.tensor([0.25])})
    _, later = completed(step, torch.zeros(LAYOUT.size), 4.0, news=bits, memory=held)
    assert float(later.server[CLIP]) == pytest.approx(0.25 * exp(-0.2 * 0.25), rel=1e-6)
    long = torch.zeros(LAYOUT.size)
    long[0] = 1.0
    update = sent(step, 0, long, memory={CLIP: np.array([0.25], np.float32)})
    assert norm(update.params) == pytest.approx(0.25, rel=1e-5)
    assert float(update.memory[BELOW][0]) == 0.0


@pytest.mark.parametrize("noise_multiplier", [0.0, 1.0])
def test_the_clipping_norm_comes_to_the_quantile_of_the_norms(noise_multiplier):
    step = PrivateMean(noise_multiplier, cohort=200, clip=1e-3, adapts=Quantile(0.8, lr=0.5))
    norms, clip = np.linspace(0.5, 1.5, 200), 1e-3
    for index in range(1, 120):
        bits = {client: {BELOW: np.array([own <= clip], np.float32)} for client, own in enumerate(norms)}
        held = PartMemory({CLIP: torch.tensor([clip])})
        _, half = completed(step, torch.zeros(LAYOUT.size), 200.0, index, held, bits)
        clip = float(half.server[CLIP])
    assert clip == pytest.approx(1.3, abs=0.1)


def test_sum_and_bits_together_cost_what_one_sum_costs():
    for noise in (0.3, 1.0, 3.0):
        step = PrivateMean(noise_multiplier=noise, cohort=30, adapts=Quantile(0.5))
        of_bits = step.adapts.noise_of(30, noise) / 0.5
        together = 1 / sqrt(step.sum_noise_multiplier**-2 + of_bits**-2)
        assert together == pytest.approx(noise, rel=1e-12)
        assert step.sum_noise_multiplier > noise


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"clip": 0.0}, "clip: got 0"),
        ({"cohort": 0}, "cohort: got 0"),
        ({"noise_multiplier": -1.0}, "noise_multiplier: got -1"),
        ({"per_block": True, "adapts": Quantile()}, "per_block: got True; expected false"),
        ({"noise_multiplier": 2.0, "adapts": Quantile(noise=1.0)}, "adapts.noise: got 1.*more than 1, half"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(over, message):
    with pytest.raises(InputError, match=message):
        PrivateMean(**{"noise_multiplier": 1.0, "cohort": 4, **over})


def test_a_model_with_buffers_is_refused():
    layout = ParameterLayout.from_module(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)))
    with pytest.raises(InputError, match=r"privacy: got 'a model with 1.running_mean'.*GroupNorm"):
        ClientSteps([PrivateMean(1.0, 4)], RunFacts(layout))


@pytest.mark.parametrize("noise", ["server", "clients"])
@pytest.mark.parametrize("adapts", [None, Quantile()])
def test_it_conforms_to_client_steps(noise, adapts):
    check_client_step(PrivateMean(1.0, 4, adapts=adapts, noise=noise))
