"""Differential privacy in rounds of real clients: clipping on the server, and noise before the choice."""

import numpy as np
import pytest
import torch
from torch import nn

from fedtlu_fast import FedTLU, InputError
from fedtlu_fast.integrations.global_model import GlobalModel
from fedtlu_fast.integrations.layer_update import LayerUpdate
from fedtlu_fast.integrations.round import Round
from fedtlu_fast.privacy.noise import SystemDraws
from fedtlu_fast.privacy.private_mean import PrivateMean, Quantile

NET = nn.Sequential(*(nn.Linear(40, 40) for _ in range(4)), nn.Linear(40, 3))
START = {name: np.zeros(tuple(tensor.shape), np.float32) for name, tensor in NET.state_dict().items()}


def replies(*norms, only=("",)):
    """Returns arrays of one client for each norm of a change."""
    found = {}
    for client, norm in enumerate(norms):
        draws = np.random.default_rng(client)
        own = {name: draws.normal(size=array.shape).astype(np.float32) for name, array in START.items()}
        size = np.sqrt(sum(float((array**2).sum()) for array in own.values()))
        found[client] = {name: array * (norm / size) for name, array in own.items() if name.startswith(only)}
    return found


def stepped(private, given, weights=None, **update):
    settings = {"noise_source": "seed", "selection": "full", **update}
    model = GlobalModel(START, LayerUpdate(privacy=private, **settings))
    begun = Round(model, 1, weights or dict.fromkeys(given, 5.0))
    begun.add_all(given)
    return model, begun.finish()


def test_changes_are_clipped_and_weigh_the_same():
    private, norms = PrivateMean(0.0, cohort=4, clip=1.0), (100.0, 0.5, 3.0)
    given = replies(*norms)
    model, _ = stepped(private, given, {0: 1000.0, 1: 1.0, 2: 7.0})
    expected = torch.zeros(model.layout.size)
    for norm, arrays in zip(norms, given.values(), strict=True):
        flat = torch.cat([torch.from_numpy(arrays[name]).flatten() for name in model.layout.names])
        expected += flat / max(1.0, norm) / 4
    torch.testing.assert_close(model.params, expected, rtol=1e-4, atol=1e-7)


def test_the_noise_is_added_before_the_choice_and_follows_its_source():
    private, given = PrivateMean(2.0, cohort=10, clip=0.5), replies(1e-4, 1e-4)
    first, _ = stepped(private, given)
    assert float(first.params.std()) == pytest.approx(2.0 * 0.5 / 10, rel=0.05)
    again, _ = stepped(private, given)
    assert torch.equal(first.params, again.params)
    real, _ = stepped(private, given, noise_source="system")
    assert not torch.equal(first.params, real.params)
    assert float(real.params.std()) == pytest.approx(0.1, rel=0.05)
    chosen, step = stepped(private, given, selection="fedtlu", keep=1, unique="never")
    assert len(step.selection.names) == 1
    assert 0 < int((chosen.params != 0).sum()) < chosen.layout.size / 2
    _, quiet = stepped(PrivateMean(0.0, cohort=10), given, selection="fedtlu", keep=1, unique="never")
    assert step.scores != quiet.scores


def test_a_round_without_usable_replies_publishes_noise():
    spoilt = replies(1.0)
    spoilt[0]["0.weight"][0, 0] = np.nan
    model, step = stepped(PrivateMean(1.0, cohort=2), spoilt)
    assert step.refused == [0]
    assert float(model.params.std()) == pytest.approx(0.5, rel=0.1)


def test_blocks_that_nobody_sent_get_no_noise_and_different_ones_are_refused():
    private = PrivateMean(1.0, cohort=2)
    model, _ = stepped(private, replies(1.0, 1.0, only=("0.", "4.")))
    for index, block in enumerate(model.layout.blocks):
        own = torch.cat([model.params[run] for run in model.layout.runs({index})])
        assert bool(own.any()) == (block.name in ("0", "4"))
    mixed = replies(1.0, 1.0)
    mixed[1] = {name: array for name, array in mixed[1].items() if not name.startswith("2.")}
    with pytest.raises(InputError, match=r"privacy: got 'replies without 2 .*expected the same blocks"):
        stepped(private, mixed)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"aggregation": "median"}, r"aggregation: got 'Median'; expected the mean with privacy"),
        ({"selection": FedTLU(metric="pairs")}, r"selection: got 'FedTLU'.*asks for client_values"),
        ({"privacy": PrivateMean(1.0, 2, noise="clients")}, r"privacy: .*noise='server'"),
        ({"privacy": PrivateMean(1.0, 2, adapts=Quantile())}, r"privacy: .*a clipping norm that stays"),
    ],
)
def test_parts_that_do_not_fit_are_refused(update, message):
    with pytest.raises(InputError, match=message):
        LayerUpdate(**{"privacy": PrivateMean(1.0, 2), **update})


def test_models_with_buffers_are_refused():
    batch = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    arrays = {name: tensor.numpy() for name, tensor in batch.state_dict().items()}
    with pytest.raises(InputError, match=r"privacy: got 'a model with 1.running_mean'"):
        GlobalModel(arrays, LayerUpdate(privacy=PrivateMean(1.0, 2)))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 200_001])
def test_draws_of_the_system_are_standard_normal_and_never_the_same(count):
    found, other = (SystemDraws().standard_normal(count) for _ in range(2))
    assert found.shape == (count,)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    if count > 1000:
        assert abs(found.mean()) < 5 / np.sqrt(count)
        assert found.var() == pytest.approx(1, abs=5 * np.sqrt(2 / count))
        assert (found.astype(float) ** 4).mean() == pytest.approx(3, abs=5 * np.sqrt(96 / count))
        half = count // 2
        assert abs(np.corrcoef(found, other)[0, 1]) < 5 / np.sqrt(count)
        assert abs(np.corrcoef(found[:half], found[half : 2 * half])[0, 1]) < 5 / np.sqrt(half)
