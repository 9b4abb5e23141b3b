"""The value that says how clients train, and the user's own optimizers in the engines."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.own_parts import rmsprop
from torch import nn

from fedtlu_fast import InputError, Local, ParameterLayout
from fedtlu_fast.clients.compiled import CannotCompileError, CompiledTrainer
from fedtlu_fast.clients.optimizer import AdamW, Optimizer, Sgd, TorchOptimizer
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import CannotVectorizeError, VectorizedTrainer
from fedtlu_fast.config.settings import load_config, parse_config
from fedtlu_fast.data.population import Samples
from fedtlu_fast.tasks.classification import Classification

RMSPROP = "support.own_parts:rmsprop"


def test_a_name_takes_its_learning_rate_beside_it():
    assert Local("adamw", lr=1e-2, steps=3) == Local(AdamW(1e-2), steps=3)
    assert Local("sgd", 0.25) == Local(Sgd(0.25)) == Local(lr=0.25)
    assert Local(Sgd(0.1, momentum=0.9), lr=0.2).optimizer == Sgd(0.2, 0.9)
    assert Local("adamw").optimizer == AdamW()
    assert (Local().steps, Local().epochs, Local(steps=3).epochs) == (None, 1.0, None)
    assert replace(Local("adamw", lr=1e-2), optimizer=Sgd(0.5)).optimizer == Sgd(0.5)
    assert pickle.loads(pickle.dumps(Local("adamw", lr=1e-2))) == Local(AdamW(1e-2))  # noqa: S301


def test_a_function_is_an_optimizer_by_its_name_and_as_an_object():
    assert Local(RMSPROP) == Local(rmsprop) == Local(TorchOptimizer(rmsprop))
    config = load_config(overrides=[f"training.optimizer={RMSPROP}", "training.batch_size=3"])
    assert config.training.local == Local(rmsprop, batch_size=3)
    assert config.training.model_dump()["optimizer"] == RMSPROP
    assert parse_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("args", "given", "message"),
    [
        (("adam",), {}, r"^optimizer: got 'adam'. Did you mean adamw\? Expected one of sgd, adamw"),
        ((3,), {}, "^optimizer: got 3"),
        (("adamw", -1), {}, "^lr: got -1; expected greater than 0"),
        (("adamw",), {"lr": True}, "^lr: got True; expected not true or false"),
        ((rmsprop,), {"lr": 0.1}, "^lr: got 0.1; expected nothing beside TorchOptimizer"),
        ((), {"steps": 2, "epochs": 1}, "^steps: got .*expected one of the two"),
        ((), {"steps": 0}, "^steps: got 0"),
        ((), {"epochs": 0}, "^epochs: got 0"),
        ((), {"batch_size": 0}, "^batch_size: got 0"),
        ((), {"clip_norm": 0}, "^clip_norm: got 0"),
        ((), {"proximal_mu": -1}, "^proximal_mu: got -1"),
        ((), {"local_steps": 3}, r"^local_steps: got 3\. Did you mean steps\?"),
    ],
)
def test_what_a_local_training_refuses(args, given, message):
    with pytest.raises(InputError, match=message):
        Local(*args, **given)


def test_settings_and_the_value_describe_each_other():
    local = Local(Sgd(0.1, 0.9, 0.01), steps=3, batch_size=5, clip_norm=None, proximal_mu=0.1)
    config = parse_config({"training": local})
    assert config.training.local == local
    flat = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "local_steps": 3}
    more = {"batch_size": 5, "clip_norm": None, "proximal_mu": 0.1}
    assert parse_config({"training": {**flat, **more}}) == config
    start = parse_config({"pretraining": {"epochs": 2, "optimizer": "sgd", "lr": 0.1}}).pretraining
    assert start.local == Local("sgd", lr=0.1, epochs=2, batch_size=32)


# --- in the engines ------------------------------------------------------------------------------


def parts(local, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 7), nn.ReLU(), nn.Linear(7, 3))
    layout = ParameterLayout.from_module(model, "module")
    pool = torch.randn(20, 6), torch.randint(3, (20,))
    return Classification(model), layout, local, 5, Samples(pool, np.arange(20))


def trained(local, blocks=None, rounds=2):
    task, layout, _, seed, samples = parts(local)
    params, buffers = layout.flatten(task.model), torch.empty(0)
    trainer = LocalTrainer(task, layout, local, seed)
    found = []
    for index in range(1, rounds + 1):  # with an optimizer of its own in each
        found.append(trainer.train(params, buffers, samples, index, 0, blocks).params.clone())
    return params, torch.stack(found)


@pytest.mark.parametrize("blocks", [None, [1], [0, 2], []], ids=str)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Sgd(0.1, 0.9, 0.01), lambda own: torch.optim.SGD(own, lr=0.1, momentum=0.9, weight_decay=0.01)),
        (AdamW(0.01, 0.1), lambda own: torch.optim.AdamW(own, lr=0.01, weight_decay=0.1)),
    ],
    ids=["sgd", "adamw"],
)
def test_a_function_of_torch_s_classes_makes_the_same_steps(ours, theirs, blocks):
    more = {"steps": 7, "batch_size": 4, "clip_norm": 0.5, "proximal_mu": 0.1}
    start, expected = trained(Local(ours, **more), blocks)
    _, found = trained(Local(theirs, **more), blocks)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(found[0], start) == (blocks == [])


def test_the_function_gets_the_parameters_that_are_trained_with_their_shapes():
    seen = []

    def function(parameters):
        seen.append([tuple(one.shape) for one in parameters])
        return torch.optim.SGD(parameters, lr=0.1)

    trained(Local(function, steps=1), [1], rounds=2)
    assert seen == [[(7, 7), (7,)]] * 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda own: None, "returns a torch.optim.Optimizer, not NoneType"),
        (lambda: None, "a function of parameters; TypeError"),
    ],
)
def test_a_function_that_makes_no_optimizer_is_refused(function, message):
    with pytest.raises(InputError, match=rf"^optimizer: got .*<lambda>.*{message}"):
        trained(Local(function))


def test_engines_say_why_they_cannot_take_an_optimizer():
    *given, samples = parts(Local(rmsprop))
    with pytest.raises(CannotVectorizeError, match="its optimizer takes the parameters of one model"):
        VectorizedTrainer(*given, 2, samples)
    with pytest.raises(CannotCompileError, match="its optimizer is neither sgd nor adamw"):
        CompiledTrainer(*given, samples)


class Sign(Optimizer):
    """Steps of one size, number by number; serves rows of clients too."""

    def start(self, params):
        return self

    def step_(self, params, grads):
        for one, grad in zip(params, grads, strict=True):
            one.data.sub_(grad.sign(), alpha=0.01)


def test_a_flat_optimizer_of_the_user_s_serves_clients_side_by_side():
    task, layout, local, seed, samples = parts(Local(Sign(), steps=3, batch_size=4, clip_norm=None))
    params = layout.flatten(task.model)
    many = VectorizedTrainer(copy.deepcopy(task), layout, local, seed, 2, samples)
    found = many.train(params, [samples, samples], 1, [0, 1])
    alone = LocalTrainer(task, layout, local, seed)
    for row, client in zip(found.params, found.clients, strict=True):
        expected = alone.train(params, torch.empty(0), samples, 1, client).params
        torch.testing.assert_close(row, expected, rtol=1e-6, atol=1e-7)
