"""Language modelling: the models of the settings, and its evaluation."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel

from fedtlu_fast.build.task import build_task
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.federated import FederatedData
from fedtlu_fast.data.splits import Origin
from fedtlu_fast.models.transformer import Transformer
from fedtlu_fast.tasks.language_modelling import LanguageModelling

SIZE = {"layers": 2, "width": 8, "heads": 2}


def build(architecture, seed=1):
    model = {**SIZE, "architecture": architecture}
    config = parse_config({"model": model, "data": {"vocabulary": 30, "window": 6}})
    data = FederatedData(None, 6, 30, Origin("tokens", (), None, (), ()))
    return build_task(config, data, seed).model


def test_gpt2_is_the_default_and_ours_is_there_by_name():
    assert parse_config({}).model.model_dump()["architecture"] is None
    default = build(None)
    assert isinstance(default, GPT2LMHeadModel)
    for name, value in build("gpt2").state_dict().items():
        assert torch.equal(default.state_dict()[name], value)
    ours = build("transformer")
    assert isinstance(ours, Transformer)
    assert ours.causal
    assert (ours.tokens.num_embeddings, ours.head.out_features, ours.positions.num_embeddings) == (30, 30, 6)
    assert torch.equal(build("transformer").head.weight, ours.head.weight)
    assert not torch.equal(build("transformer", seed=2).head.weight, ours.head.weight)


@pytest.mark.parametrize("architecture", ["gpt2", "transformer"])
def test_losses_counts_and_evaluation_agree(architecture, generator):
    task = LanguageModelling(build(architecture).eval())
    batch = (torch.randint(0, 30, (9, 7), generator=generator),)
    losses = task.losses(batch)
    assert task.loss(batch).item() == pytest.approx(losses.mean().item(), rel=1e-5)
    assert task.counts(batch).tolist() == [6] * 9
    found = task.evaluate(batch, 4)
    torch.testing.assert_close(found.losses.float(), losses.detach(), rtol=1e-5, atol=1e-6)
    assert found.counts.tolist() == [6] * 9
    assert found.loss.item() == found.losses.mean().item()
    assert found.means == {}
    assert found.f1() is None


def test_our_transformers_losses_are_of_the_next_token(generator):
    task = LanguageModelling(build("transformer"))
    (tokens,) = batch = (torch.randint(0, 30, (9, 7), generator=generator),)
    by_hand = [cross_entropy(task.model(row[None, :-1])[0], row[1:]).item() for row in tokens]
    assert task.evaluate(batch, 4).losses.tolist() == pytest.approx(by_hand, rel=1e-5)
