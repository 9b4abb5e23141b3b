"""The module that a run leaves: final weights and buffers, saved as Hugging Face does."""

import pytest
import torch
from support.federations import tiny, write_text
from torch import nn
from transformers import AutoModelForCausalLM

from fedtlu_fast.api import simulate
from fedtlu_fast.build.run import open_run
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.models.trained_model import trained_model


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("data") / "text.txt")


def batchnorm():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    return model


def test_it_has_the_values_and_the_first_model_keeps_its_own():
    model = batchnorm()
    layout = ParameterLayout.from_module(model)
    before = {name: own.clone() for name, own in model.state_dict().items()}
    model[2].weight.requires_grad_(False)  # as a client that trains other blocks leaves it
    params, buffers = torch.arange(layout.size).float(), torch.full((8,), 7.0)
    found = trained_model(model, layout, params, buffers)
    assert torch.equal(layout.flatten(found), params)
    assert torch.equal(layout.flatten_buffers(found), buffers)
    assert found[1].running_mean.tolist() == [7.0] * 4
    assert torch.equal(found[0].weight, before["0.weight"])
    assert [name for name, own in found.named_parameters() if not own.requires_grad] == ["0.weight"]
    assert not found.training
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    with torch.no_grad():
        found[2].weight.zero_()
    assert params[layout.runs([len(layout.blocks) - 1])[0]].any(), "the vector is not the module's"


def test_the_result_of_a_run_with_batchnorm_predicts_as_its_test_did():
    settings = {
        "task": "image_classification",
        "rounds": 2,
        "warmup_rounds": 0,
        "clients": 4,
        "cohort": 2,
        "model": {"layers": 2, "width": 8, "norm": "batch"},
        "execution": {"executor": "serial"},
    }
    result = simulate(settings)
    assert torch.equal(result.layout.flatten(result.model), result.params)
    assert {name for name in result.state_dict() if name.endswith("running_mean")}
    run = open_run(parse_config(settings))
    task, test = run.server.trainer.task, run.server.population.test
    run.close()
    task.model.load_state_dict(result.state_dict())
    assert task.evaluate(test, 64).loss.item() == pytest.approx(result.summary["test_loss"], rel=1e-6)
    lines = repr(result).splitlines()
    assert len(lines) == 4
    assert f"test accuracy: {100 * result.summary['test_accuracy']:.4g}%" in lines[1]


@pytest.mark.parametrize("rank", [0, 2])
def test_what_is_saved_is_read_by_from_pretrained(text, tmp_path, rank):
    more = {"lora": {"rank": rank}} if rank else {}
    result = simulate(tiny(text, model={"layers": 3, "width": 8, "heads": 2, **more}))
    result.save_pretrained(tmp_path / "saved", merge=True)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert not [name for name in again.state_dict() if "lora" in name]
    tokens = torch.arange(8)[None]
    expected = result.model(input_ids=tokens).logits
    torch.testing.assert_close(again(input_ids=tokens).logits, expected, rtol=1e-4, atol=1e-5)
    assert bool(rank) == bool([name for name in result.state_dict() if "lora" in name])
