"""Forward passes in bfloat16: close to float32 for one client and for many, and never the default."""

import copy

import numpy as np
import pytest
import torch
from support.model_zoo import gpt2
from support.models import build_mlp
from torch import nn

from fedtlu_fast import InputError, ParameterLayout, simulate
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.clients.precision import in_precision
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import VectorizedTrainer
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.config.settings import load_config
from fedtlu_fast.data.population import Samples
from fedtlu_fast.models.transformer import Transformer, TransformerModel
from fedtlu_fast.randomness import generator
from fedtlu_fast.tasks.classification import Classification
from fedtlu_fast.tasks.language_modelling import LanguageModelling
from fedtlu_fast.tasks.tagging import Tagging

SIZE = TransformerModel(layers=2, width=16, heads=2)


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def transformer(outputs, causal):
    return Transformer.build(SIZE, 50, 7, outputs, 3, causal=causal)


def tokens(high, width=7):
    return torch.from_numpy(generator(1, "tokens").integers(0, high, (60, width)))


TASKS = {
    "mlp": lambda: (Classification(build_mlp(6, (9,), 4, 3)), (torch.randn(60, 6), tokens(4, 1)[:, 0])),
    "gpt2": lambda: (LanguageModelling(without_dropout(gpt2(layers=2, width=8))), (tokens(50),)),
    "transformer": lambda: (LanguageModelling(transformer(50, causal=True)), (tokens(50),)),
    "tagger": lambda: (Tagging(transformer(4, causal=False), tuple("ABCD")), (tokens(50), tokens(4))),
}


@pytest.mark.parametrize("name", TASKS)
def test_bfloat16_is_near_float32_for_one_client_and_for_many(name):
    torch.manual_seed(2)
    task, pool = TASKS[name]()
    layout = ParameterLayout.from_module(task.model)
    start = layout.flatten(task.model)
    config = TrainingConfig(lr=0.1, batch_size=4, local_steps=3).local
    held = [Samples(pool, np.arange(first, first + 12)) for first in (0, 12, 24)]

    def alone(precision):
        own = copy.deepcopy(task)
        kinds = []
        last = [module for module in own.model.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_hook(lambda _, given, out: kinds.append(out.dtype))
        trainer = LocalTrainer(own, layout, config, 0, precision=precision)
        updates = [trainer.train(start, torch.empty(0), samples, 1, k) for k, samples in enumerate(held[:1])]
        assert set(kinds) == {torch.float32 if precision == "float32" else torch.bfloat16}
        assert trainer.params.dtype == trainer.grads.dtype == torch.float32
        return updates[0].params.clone() - start, updates[0].loss

    def together(precision):
        trainer = VectorizedTrainer(copy.deepcopy(task), layout, config, 0, 3, held[0], precision)
        found = trainer.train(start, held, 1, [0, 1, 2])
        row = found.clients.index(0)
        return found.params[row].clone() - start, found.losses[row]

    exact, loss = alone("float32")
    for way in (alone, together):
        change, own_loss = way("bfloat16")
        apart = float((change - exact).norm() / exact.norm())
        # 8 bits of mantissa: 0.4% a rounding; float32's own differences are 1e-6.
        assert 1e-4 < apart < 0.05
        assert own_loss == pytest.approx(loss, rel=0.02)


def test_float32_is_the_loss_itself():
    def loss(batch):
        return batch

    assert in_precision(loss, "float32", torch.device("cpu")) is loss


def test_a_gpu_without_it_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(InputError, match=r"execution.precision: got 'bfloat16'; expected float32: this GPU"):
        in_precision(lambda batch: batch, "bfloat16", torch.device("cuda"))


def test_the_settings_decide_and_float32_is_theirs():
    def forward(*overrides):
        config = load_config("smoke", overrides=overrides)
        trainer = make_parts(config).trainer
        kinds = []
        task = trainer.task
        last = [module for module in task.model.modules() if isinstance(module, nn.Linear)][-1]
        last.register_forward_hook(lambda _, given, out: kinds.append(out.dtype))
        trainer._loss(make_parts(config).population.train(0).all())
        return kinds

    assert forward() == [torch.float32]
    assert forward("execution.precision=bfloat16") == [torch.bfloat16]


def test_a_run_keeps_its_precision(tmp_path):
    given = ["rounds=1", "trained_clients=0", "executor=serial"]
    simulate(load_config("smoke", overrides=given), tmp_path)
    other = load_config("smoke", overrides=[*given, "execution.precision=bfloat16"])
    with pytest.raises(InputError, match="settings"):
        simulate(other, tmp_path, resume=True)
