"""FedTLU for Flower's message API, without its engine; `.ci/flower` runs these tests."""

import logging

import numpy as np
import pytest
import torch
from support.own_parts import Cautious, middle
from support.own_selectors import Counting, largest
from torch import nn

from fedtlu_fast import FedTLU as BestBlocks
from fedtlu_fast import InputError
from fedtlu_fast.aggregation.server_optimizer import Momentum
from fedtlu_fast.integrations.global_model import GlobalModel
from fedtlu_fast.integrations.layer_update import LayerUpdate
from fedtlu_fast.integrations.round import Round
from fedtlu_fast.privacy.private_mean import PrivateMean

pytest.importorskip("flwr.serverapp.strategy", reason="needs Flower, see docs/guides/flower.md")
from support.flower_messages import LocalGrid, record_of, reply

from fedtlu_fast.integrations.flower import FedTLU, FedTLUProx, send_chosen_layers
from fedtlu_fast.integrations.flower.chosen_layers import CHOSEN

NODES = (11, 12, 13, 14)


def start():
    torch.manual_seed(0)
    layers = [part for _ in range(4) for part in (nn.Linear(6, 6), nn.ReLU())]
    return {
        name: tensor.numpy() for name, tensor in nn.Sequential(*layers, nn.Linear(6, 2)).state_dict().items()
    }


def trained(arrays, node, server_round):
    """Arrays after a node's training; the blocks change by different amounts."""
    draws = np.random.default_rng([node, server_round])
    width = {name: 0.02 * (1 + int(name[0])) for name in arrays}
    return {n: (a + draws.normal(0, width[n], a.shape)).astype("f4") for n, a in arrays.items()}


class Clients:
    """Nodes that train and remember what they get; obedient ones send only what they are asked for."""

    def __init__(self, obedient=False, weight=None):
        self.seen, self._obedient, self._weight = [], obedient, weight

    def __call__(self, message):
        def turn(message, context):
            (config,) = message.content.config_records.values()
            self.seen.append((message.metadata.dst_node_id, dict(config)))
            got = {name: array.numpy() for name, array in message.content["arrays"].items()}
            node = message.metadata.dst_node_id
            new = trained(got, node, config["server-round"])
            return reply(message, new, **{"num-examples": self._weight or node, "loss": 1.0})

        return send_chosen_layers(message, None, turn) if self._obedient else turn(message, None)


def ran(strategy, rounds=2, obedient=False):
    clients = Clients(obedient)
    grid = LocalGrid(dict.fromkeys(NODES, clients))
    result = strategy.start(grid=grid, initial_arrays=record_of(start()), num_rounds=rounds)
    return {name: array.numpy() for name, array in result.arrays.items()}, result, clients.seen


COMMON = {"fraction_evaluate": 0.0, "granularity": "module", "keep": 2}
PARTS = [
    {"selection": "fedtlu"},
    {"selection": BestBlocks(metric="l2_per_parameter")},
    {"selection": largest},
    {"selection": "support.own_selectors:largest"},
    {"selection": Counting()},
    {"aggregation": "median"},
    {"aggregation": Cautious(0.5)},
    {"aggregation": "support.own_parts:middle"},
    {"aggregation": middle},
    {"server_optimizer": "momentum", "server_lr": 0.5},
    {"server_optimizer": Momentum(0.5)},
]


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_parts_of_a_simulation_work_by_name_dotted_name_and_object(parts):
    theirs, result, _ = ran(FedTLU(**COMMON, **parts))
    model = GlobalModel(start(), LayerUpdate(granularity="module", keep=2, **parts))
    for index in (1, 2):
        begun = Round(model, index, {node: float(node) for node in NODES})
        sent = {node: trained(model.arrays(), node, index) for node in NODES}
        for node, arrays in sent.items():
            begun.add(node, arrays)
        step = begun.finish()
        assert result.train_metrics_clientapp[index]["chosen"] == list(step.selection.blocks)
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(theirs[name], array, err_msg=name)
    plain, _, _ = ran(FedTLU(**COMMON, selection="full"))
    assert any(not np.array_equal(theirs[name], plain[name]) for name in plain)


def test_prox_sends_its_mu_beside_the_orders():
    _, _, seen = ran(FedTLUProx(**COMMON, proximal_mu=0.25, client_selection="random"), obedient=True)
    assert len(seen) == 2 * len(NODES)
    for _, config in seen:
        assert config["proximal-mu"] == 0.25
        assert len(config[CHOSEN]) == 4, "the weight and bias of one block, and of the head"


@pytest.mark.parametrize("weight", [float("inf"), float("nan"), -1.0])
def test_a_weight_that_is_no_number_of_samples_is_refused_by_its_key(weight):
    grid = LocalGrid(dict.fromkeys(NODES, Clients(weight=weight)))
    with pytest.raises(InputError, match=r"num-examples.*a finite number of samples"):
        FedTLU(**COMMON).start(grid=grid, initial_arrays=record_of(start()), num_rounds=1)


def test_a_reply_with_chosen_layers_is_small():
    def size(obedient):
        sizes = []

        class Measured(FedTLU):
            def aggregate_train(self, server_round, replies):
                sizes.extend(one.content["arrays"].count_bytes() for one in replies)
                return super().aggregate_train(server_round, replies)

        ran(Measured(**COMMON, client_selection="random"), obedient=obedient)
        return sum(sizes)

    assert size(True) < 0.4 * size(False)


def test_clients_that_send_everything_in_spite_of_orders_are_told_once():
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("flwr")
    logger.addHandler(handler)

    def told(obedient, **parts):
        said.clear()
        ran(FedTLU(**COMMON, **parts), obedient=obedient)
        return [text for text in said if "send_chosen_layers" in text]

    try:
        (text,) = told(False, client_selection="random")
        assert "client 11 sent 6 arrays more than it was asked for" in text
        assert not told(True, client_selection="random")
        assert not told(False)
    finally:
        logger.removeHandler(handler)


def test_wrong_settings_are_refused_by_name():
    with pytest.raises(InputError, match="Did you mean fedtlu"):
        FedTLU(selection="fedtul")
    with pytest.raises(InputError, match="client_selection"):
        FedTLU(client_selection="strategic")
    with pytest.raises(InputError, match=r"client_selection: got 'Counting'; .*without remembers"):
        FedTLU(client_selection=Counting())
    with pytest.raises(InputError, match=r"selection: got 'Oracle'; .*no samples held by the server"):
        FedTLU(selection="oracle")
    with pytest.raises(TypeError, match="fraction_trian"):
        FedTLU(fraction_trian=0.5)


@pytest.mark.parametrize("cohort", [4, 2])
def test_a_private_mean_of_another_cohort_is_warned_of(caplog, cohort):
    caplog.set_level(logging.WARNING, "flwr")
    ran(FedTLU(privacy=PrivateMean(0.5, cohort, 1.0), **COMMON), rounds=1)
    said = "4 clients are asked, and PrivateMean divides the sum by cohort=2"
    assert (said in caplog.text) == (cohort == 2)
