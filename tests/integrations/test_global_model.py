"""A server that updates a model by what other tools' clients send."""

import numpy as np
import pytest
import torch
from support.own_selectors import Counting
from torch import nn

from fedtlu_fast import InputError, apply_, choose, score
from fedtlu_fast.integrations.global_model import GlobalModel
from fedtlu_fast.integrations.layer_update import LayerUpdate
from fedtlu_fast.integrations.round import Round
from fedtlu_fast.scoring.block_metrics import asks
from fedtlu_fast.selection import FedTLU
from fedtlu_fast.soundness import LARGEST


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [part for _ in range(4) for part in (nn.Linear(6, 6), nn.ReLU())]
    return nn.Sequential(*layers, nn.BatchNorm1d(6), nn.Linear(6, 2))


def arrays_of(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def trained(start: dict[str, np.ndarray], client: int) -> dict[str, np.ndarray]:
    draws, found = np.random.default_rng(client), {}
    for name, array in start.items():
        change = 1 if array.dtype == np.int64 else draws.normal(0, 0.1, array.shape)
        found[name] = (array + change).astype(array.dtype)
    return found


def stepped(model, replies, weights, round_index=1):
    begun = Round(model, round_index, weights)
    for client, arrays in replies.items():
        begun.add(client, arrays)
    return begun.finish()


WEIGHTS = {3: 10.0, 5: 30.0, 9: 20.0}


@pytest.fixture
def start() -> dict[str, np.ndarray]:
    return arrays_of(net())


@pytest.fixture
def replies(start) -> dict[int, dict[str, np.ndarray]]:
    return {client: trained(start, client) for client in WEIGHTS}


def mean(replies, name: str, senders=tuple(WEIGHTS)) -> np.ndarray:
    total = sum(WEIGHTS[client] for client in senders)
    return sum(WEIGHTS[client] / total * replies[client][name].astype("f8") for client in senders)


@pytest.mark.parametrize("module", [None, net()], ids=["arrays alone", "with a module"])
def test_a_step_is_the_mean_in_the_chosen_blocks_and_nothing_elsewhere(start, replies, module):
    model = GlobalModel(start, LayerUpdate(granularity="module", keep=1), module)
    step = stepped(model, replies, WEIGHTS)
    after = model.arrays()
    # The same by the three verbs for loops of one's own.
    target = net()
    change = {n: torch.from_numpy(mean(replies, n)).float() - p for n, p in target.named_parameters()}
    averaged = {name: parameter + change[name] for name, parameter in target.named_parameters()}
    chosen = choose(score(net(), averaged, granularity="module"), keep=1)
    assert step.selection.names == chosen.names
    assert 0 < step.updated_share < 1
    assert step.sent_share == 1
    apply_(target, change, chosen)
    for name, parameter in target.named_parameters():
        np.testing.assert_allclose(after[name], parameter.detach().numpy(), rtol=1e-6, atol=1e-6)
    assert list(after) == list(start)
    assert {name: array.dtype for name, array in after.items()} == {n: a.dtype for n, a in start.items()}
    np.testing.assert_allclose(after["8.running_mean"], mean(replies, "8.running_mean"), atol=1e-6)
    assert after["8.num_batches_tracked"] == 1, "a counter is averaged in whole numbers"


def test_a_block_is_averaged_over_the_clients_that_sent_it(start, replies):
    del replies[5]["2.weight"], replies[5]["2.bias"]
    for client in WEIGHTS:
        del replies[client]["4.weight"], replies[client]["4.bias"]
    model = GlobalModel(start, LayerUpdate(selection="full", granularity="module"))
    step = stepped(model, replies, WEIGHTS)
    np.testing.assert_allclose(model.arrays()["2.weight"], mean(replies, "2.weight", (3, 9)), atol=1e-6)
    np.testing.assert_array_equal(model.arrays()["4.weight"], start["4.weight"])
    assert "4" not in step.selection.names
    assert 0.5 < step.sent_share < 1


def test_clients_with_numbers_that_are_not_sound_are_left_out(start, replies):
    replies[5]["2.weight"][0, 0] = np.nan
    model = GlobalModel(start, LayerUpdate(selection="full", granularity="module"))
    step = stepped(model, replies, WEIGHTS)
    assert step.refused == [5]
    np.testing.assert_allclose(model.arrays()["0.weight"], mean(replies, "0.weight", (3, 9)), atol=1e-6)


def test_without_any_sound_client_the_model_stays_as_it_is(start, replies):
    for arrays in replies.values():
        arrays["0.bias"][:] = np.inf
    model = GlobalModel(start, LayerUpdate(granularity="module", keep=1))
    assert stepped(model, replies, WEIGHTS) is None
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, start[name])


@pytest.mark.parametrize("rule", ["median", "krum", "norm_clip", lambda updates, weights: updates.mean(0)])
def test_rules_and_optimizers_are_those_of_a_simulation(start, rule):
    weights = dict.fromkeys(range(9), 1.0)
    replies = {client: trained(start, client) for client in weights}
    update = LayerUpdate(granularity="module", aggregation=rule, server_optimizer="momentum", keep=2)
    model = GlobalModel(start, update)
    for round_index in (1, 2):
        assert len(stepped(model, replies, weights, round_index).selection.names) == 4
    assert set(model.optimizer) == {"momentum"}


def test_a_score_sees_facts_about_clients_and_the_round_before(start, replies):
    seen = []

    @asks("client_stats", "client_norms", "client_values")
    def by_largest(change):
        seen.append((change.client_stats.l2.shape, change.last_choice, change.round))
        of_layers = change.client_values.values.split([x.numel for x in change.layout.layers], dim=1)
        norms = torch.stack([values.double().norm(dim=1) for values in of_layers], dim=1)
        torch.testing.assert_close(norms, change.client_stats.l2, rtol=1e-6, atol=0)
        return [change.stats.l2[list(block.layers)].max() for block in change.layout.blocks]

    model = GlobalModel(start, LayerUpdate(granularity="module", keep=1, selection=by_largest))
    first = stepped(model, replies, WEIGHTS)
    stepped(model, replies, WEIGHTS, 2)
    assert seen[0] == ((3, len(model.layout.layers)), None, 1)
    assert tuple(np.flatnonzero(seen[1][1])) == first.selection.blocks


def test_what_does_not_fit_is_refused_by_name(start, replies):
    model = GlobalModel(start, LayerUpdate(granularity="module", keep=1))
    begun = Round(model, 1, WEIGHTS)
    with pytest.raises(InputError, match=r"reply of client 3: 0\.weight: got \(6, 5\)"):
        begun.add(3, {**replies[3], "0.weight": np.zeros((6, 5), "f4")})
    with pytest.raises(InputError, match=r"no array 2\.bias.*all arrays of block 2, or none"):
        begun.add(3, {name: array for name, array in replies[3].items() if name != "2.bias"})
    median = GlobalModel(start, LayerUpdate(granularity="module", aggregation="median"))
    begun = Round(median, 1, WEIGHTS)
    with pytest.raises(InputError, match="every block with aggregation=Median"):
        begun.add(3, {name: array for name, array in replies[3].items() if not name.startswith("2.")})
    with pytest.raises(InputError, match="Did you mean fedtlu"):
        LayerUpdate(selection="fedtul")
    with pytest.raises(InputError, match="floating-point"):
        GlobalModel({"steps": np.zeros(3, np.int64)}, LayerUpdate())


def test_tied_parameters_are_one_if_the_module_is_given():
    model = nn.ModuleDict({"embed": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    start = arrays_of(model)
    held = GlobalModel(start, LayerUpdate(selection="full", granularity="tensor"), model)
    step = stepped(held, {0: trained(start, 0)}, {0: 1.0})
    assert step.selection.names == ("embed.weight",)
    np.testing.assert_array_equal(held.arrays()["head.weight"], held.arrays()["embed.weight"])
    assert not np.array_equal(held.arrays()["embed.weight"], start["embed.weight"])


def test_a_block_that_a_step_would_make_unsound_keeps_its_values_and_the_others_move(start, replies):
    for arrays in replies.values():
        arrays["4.bias"][0] = 0.9 * LARGEST
    update = LayerUpdate(selection="full", granularity="module", server_lr=2.0, server_optimizer="momentum")
    model = GlobalModel(start, update)
    step = stepped(model, replies, WEIGHTS)
    assert step.nonfinite == ("4",)
    assert "4" not in step.selection.names
    after = model.arrays()
    np.testing.assert_array_equal(after["4.bias"], start["4.bias"])
    np.testing.assert_array_equal(after["4.weight"], start["4.weight"])
    moved = start["2.weight"] + 2 * (mean(replies, "2.weight") - start["2.weight"])
    np.testing.assert_allclose(after["2.weight"], moved, atol=1e-5)


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4"])
def test_arrays_of_other_dtypes_and_layouts_are_taken(start, dtype):
    begin = {name: array.astype(dtype) if array.dtype == "f4" else array for name, array in start.items()}
    sent = trained(begin, 1)
    sent["2.weight"] = np.asfortranarray(sent["2.weight"])
    model = GlobalModel(begin, LayerUpdate(selection="full", granularity="module"))
    stepped(model, {0: sent}, {0: 3.0})
    assert model.arrays()["2.weight"].dtype == begin["2.weight"].dtype
    np.testing.assert_allclose(model.arrays()["2.weight"], sent["2.weight"], atol=2e-3)


def test_a_selector_finds_what_it_remembered(start, replies):
    """Block by block, each is applied as often as the others, after a warm-up that does not count."""
    update = LayerUpdate(granularity="module", keep=1, selection=Counting(), unique="never", warmup_rounds=1)
    model = GlobalModel(start, update)
    stepped(model, replies, WEIGHTS, 1)
    assert model.selector_memory == {}
    chosen = [stepped(model, replies, WEIGHTS, index).selection.names for index in range(2, 6)]
    assert {name for names in chosen for name in names} == {"0", "2", "4", "6"}
    assert model.selector_memory["times"].sum() == 4
    assert model.selector_memory["last/round"] == 5
    for arrays in replies.values():
        arrays["0.bias"][:] = np.inf
    before = model.selector_memory
    assert stepped(model, replies, WEIGHTS, 6) is None
    assert model.selector_memory is before, "nobody's change is nothing to remember"


@pytest.mark.parametrize("selector", ["smoothed", "coverage"])
def test_ours_that_remember_choose_as_in_a_simulation_s_rounds(start, replies, selector):
    """In the first round as FedTLU does, since there is nothing to remember."""
    kinds = [
        GlobalModel(start, LayerUpdate(granularity="module", keep=1, selection=own))
        for own in (selector, "fedtlu")
    ]
    one, other = (stepped(model, replies, WEIGHTS) for model in kinds)
    assert one.selection.names == other.selection.names
    assert set(kinds[0].selector_memory) >= {"total"}


def test_a_selector_or_metric_of_held_out_samples_is_refused_at_once():
    @asks("held_out")
    def benefit(change):
        return [0.0] * len(change.layout.blocks)

    for given, name in (("oracle", "Oracle"), (benefit, "FunctionSelector")):
        with pytest.raises(InputError, match=rf"selection: got '{name}'; .* no samples held by the server"):
            LayerUpdate(selection=given)


def test_metrics_of_single_clients_see_who_sent_which_block(start, replies):
    """A block that one client alone sent has no signal, whatever the others sent of other blocks."""
    names = [name for name in start if name.startswith("0.")]
    for client in (3, 5):
        replies[client] = {name: array for name, array in replies[client].items() if name not in names}
    step = stepped(GlobalModel(start, LayerUpdate(FedTLU("signal"), keep=3)), replies, WEIGHTS)
    assert step.scores["0"] == -1
    assert all(step.scores[block] > -1 for block in ("2", "4", "6"))
    assert "0" not in step.selection.names


@pytest.mark.parametrize("metric", ["signal", "votes", "pairs"])
def test_a_client_of_weight_zero_does_not_count_for_metrics_of_single_clients(start, replies, metric):
    def scores(more, weights):
        model = GlobalModel(start, LayerUpdate(FedTLU(metric), granularity="module", keep=1))
        return stepped(model, replies | more, WEIGHTS | weights).scores

    idle = trained(start, 11)
    assert scores({11: idle}, {11: 0.0}) == pytest.approx(scores({}, {}), rel=1e-12)
