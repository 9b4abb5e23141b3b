"""Adapters: the parameters that are trained, the blocks, and runs with every kind of executor."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from support.federations import WORDS, left, tiny, write_text
from support.model_zoo import bert, gpt2, llama, vit
from support.models import build_mlp
from support.treebanks import write_treebank
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from fedtlu_fast import InputError, ParameterLayout, extras, simulate
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.build.run import open_run
from fedtlu_fast.build.task import build_task
from fedtlu_fast.config import ModelConfig, RunConfig
from fedtlu_fast.config.settings import load_config, parse_config
from fedtlu_fast.costs.flops import backward_flops, measure_costs
from fedtlu_fast.data.partition import Dirichlet
from fedtlu_fast.models.lora import add_adapters_
from fedtlu_fast.models.transformer import Transformer, TransformerModel
from fedtlu_fast.simulation.state import WEIGHTS
from fedtlu_fast.tasks.builder import builder_of
from fedtlu_fast.tasks.language_modelling import LanguageModelling


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("data") / "text.txt")


def settings(task: str = "language_modelling", seed: int = 0, **over: Any) -> RunConfig:
    return parse_config({"task": task, "seed": seed, "model": {"lora": {"rank": 2, **over}}})


def adapt_(model: nn.Module, config: RunConfig) -> None:
    lora, head = config.model.lora, builder_of(config.task).new_head
    add_adapters_(model, lora.rank, lora.alpha, lora.targets, config.seed, train_head=head)


def ours() -> nn.Module:
    size = TransformerModel(layers=3, width=8, heads=2)
    return Transformer.build(size, 20, 8, 20, 0, causal=True)


def trained(model: nn.Module) -> set[str]:
    return {name for name, param in model.named_parameters() if param.requires_grad}


def frozen(model: nn.Module) -> dict[str, Tensor]:
    """Returns the parameters by the names that they had without adapters."""
    return {
        name.replace(".base_layer", ""): param.detach().clone()
        for name, param in model.named_parameters()
        if not param.requires_grad
    }


@pytest.mark.parametrize(
    ("make", "blocks"),
    [(gpt2, "transformer.h"), (llama, "model.layers"), (vit, "vit.layers"), (ours, "blocks")],
)
def test_blocks_of_adapters_are_the_models_blocks(make: Any, blocks: str) -> None:
    model = make()
    adapt_(model, settings())
    layout = ParameterLayout.from_module(model)
    assert [block.name for block in layout.blocks] == [f"{blocks}.{index}" for index in range(3)]
    assert [group.name for group in layout.groups] == [f"{blocks}.*"]
    assert all("lora_" in name for name in layout.names)


def test_blocks_are_found_under_pefts_own_wrapper() -> None:
    model = get_peft_model(gpt2(), LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    layout = ParameterLayout.from_module(model)
    first = "base_model.model.transformer.h.0"
    assert layout.names[0] == f"{first}.attn.c_attn.lora_A.default.weight"
    assert (layout.blocks[0].name, layout.groups[0].blocks) == (first, (0, 1, 2))


def test_the_head_is_trained_except_in_language_modelling() -> None:
    tagger, speaker, perceptron = bert(), ours(), build_mlp(5, (7, 6), 3, 0)
    adapt_(tagger, settings("tagging"))
    adapt_(speaker, settings())
    adapt_(perceptron, settings("classification"))
    assert {name for name in trained(tagger) if "lora_" not in name} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert all("lora_" in name for name in trained(speaker))
    assert {name for name in trained(perceptron) if "lora_" not in name} == {"4.weight", "4.bias"}
    assert not any("head" in name or "classifier" in name for name in trained(tagger) if "lora_" in name)


def test_adapters_change_nothing_at_first_and_depend_on_the_seed_alone() -> None:
    tokens = torch.arange(8).view(1, 8)
    models = [ours() for _ in range(3)]
    before = models[0](tokens)
    for model, seed in zip(models, (0, 0, 1), strict=True):
        torch.rand(seed + 1)
        state = torch.get_rng_state()
        adapt_(model, settings(seed=seed))
        assert torch.equal(torch.get_rng_state(), state)
    same, also, other = (ParameterLayout.from_module(model).flatten(model) for model in models)
    assert torch.equal(models[0](tokens), before)
    assert torch.equal(same, also)
    assert not torch.equal(same, other)


def test_targets_are_names_or_ends_of_names() -> None:
    model = gpt2()
    adapt_(model, settings(targets=["attn.c_proj", "transformer.h.1.mlp.c_fc"]))
    found = {name.partition(".lora_")[0] for name in trained(model)}
    assert found == {
        *(f"transformer.h.{index}.attn.c_proj" for index in range(3)),
        "transformer.h.1.mlp.c_fc",
    }
    assert settings(targets="c_attn").model.lora.targets == ("c_attn",)


@pytest.mark.parametrize("targets", [["q_proj"], ["c_attn", "wte"], ["attn"]])
def test_a_target_that_matches_nothing_is_refused(targets: list[str]) -> None:
    with pytest.raises(
        InputError, match=r"model\.lora\.targets: .*layers of this model: c_attn, c_proj, c_fc"
    ):
        adapt_(gpt2(), settings(targets=targets))


def test_an_attention_that_reads_a_weight_without_calling_its_layer_gets_no_adapter_there() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16), nn.Linear(8, 2))
    adapt_(model, settings("classification"))
    assert {name.partition(".lora_")[0] for name in trained(model)} == {
        "0.linear1",
        "0.linear2",
        "1.weight",
        "1.bias",
    }


def test_without_peft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"peft; it cannot be found\. Use pip install 'fedtlu-fast\[peft\]'"):
        adapt_(gpt2(), settings())


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (
            {"execution": {"engine": "compiled"}},
            r"execution\.engine: got 'compiled'; expected torch with model",
        ),
        ({"pretraining": {"epochs": 1}}, r"pretraining\.epochs: got 1\.0; expected 0 with model\.lora"),
    ],
)
def test_settings_that_need_whole_matrices_are_refused(over: Mapping[str, Any], message: str) -> None:
    tree = {"task": "classification", "data": {"source": "synthetic"}, "model": {"lora": {"rank": 2}}}
    data = load_federation(parse_config(tree))
    with pytest.raises(InputError, match=message):
        build_task(parse_config({**tree, **over}), data, seed=0)


def test_short_names_of_settings_are_as_before() -> None:
    config = load_config(overrides=["partition=dirichlet", "alpha=0.25", "rank=4", "model.lora.alpha=8"])
    assert config.partition.partitioner == Dirichlet(0.25)
    assert (config.model.lora.rank, config.model.lora.alpha) == (4, 8)


EXECUTIONS = {
    "serial": {"executor": "serial", "clients_per_batch": 1},
    "processes": {"executor": "processes", "clients_per_batch": 1, "workers": 2},
    "vectorized": {"executor": "vectorized", "clients_per_batch": 2},
}


def federation(text: Path, execution: str = "serial", **over: Any) -> RunConfig:
    return tiny(
        text,
        rounds=2,
        warmup_rounds=1,
        model={"lora": {"rank": 2}},
        execution=EXECUTIONS[execution],
        **over,
    )


def test_a_run_trains_adapters_only_with_the_same_bits_in_every_executor(text: Path, tmp_path: Path) -> None:
    config = federation(text)
    parts = make_parts(config)
    task, layout = parts.trainer.task, parts.trainer.layout
    assert layout.size == 768  # of each of 3 blocks: 2 (8 + 24 + 8 + 8 + 8 + 32 + 32 + 8)
    base = frozen(task.model)
    plain = make_parts(tiny(text)).trainer.task.model
    assert all(torch.equal(base[name], param) for name, param in plain.named_parameters())
    found = {name: simulate(federation(text, name), tmp_path / name) for name in EXECUTIONS}
    serial = found["serial"]
    assert left(tmp_path / "processes") == left(tmp_path / "serial")
    assert torch.allclose(found["vectorized"].params, serial.params, atol=1e-6)
    assert not torch.equal(serial.params, layout.flatten(task.model))
    assert serial.summary["bytes_up"] == 2 * 2 * 4 * 768
    assert len(serial.selection[-1]["selected"]) == 1
    # One client through the trainer itself: every frozen weight keeps its bits.
    vectors = layout.flatten(task.model), layout.flatten_buffers(task.model)
    update = parts.trainer.train(*vectors, parts.population.train(0), 1, 0)
    assert not torch.equal(update.params, vectors[0])
    assert all(torch.equal(base[name], param) for name, param in frozen(task.model).items())


def test_a_killed_run_resumes_to_the_same_bits_from_adapters_only(text: Path, tmp_path: Path) -> None:
    config = federation(text)
    whole = simulate(config)
    with closing(open_run(config, tmp_path / "cut")) as run:
        run.advance(1)
    with safe_open(next((tmp_path / "cut" / "checkpoints").rglob(WEIGHTS)), framework="pt") as file:
        assert set(file.keys()) == set(whole.layout.names)
    assert torch.equal(simulate(config, tmp_path / "cut", resume=True).params, whole.params)


def test_a_run_with_changed_frozen_weights_is_not_resumed(text: Path, tmp_path: Path) -> None:
    """The frozen weights in a directory can change between start and resume, and checkpoints lack them."""
    tokenizer = Tokenizer(WordLevel({word: code for code, word in enumerate(["[UNK]", *WORDS])}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(tmp_path / "model")
    model = gpt2()
    model.save_pretrained(tmp_path / "model")
    config = federation(text, checkpoint={"every": 1}).model_copy(
        update={
            "model": ModelConfig(pretrained=str(tmp_path / "model"), lora={"rank": 2, "targets": "c_attn"})
        }
    )
    with closing(open_run(config, tmp_path / "cut")) as run:
        run.advance(1)
    simulate(config, tmp_path / "cut", resume=True)
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=r"this run's frozen weights \(model\.pretrained\)"):
        simulate(config, tmp_path / "cut", resume=True)


def test_a_tagger_trains_its_head_too(tmp_path: Path) -> None:
    bank = write_treebank(tmp_path / "bank")
    result = simulate(
        tiny(
            bank,
            task="tagging",
            data={"source": f"udpos:{bank}"},
            model={"architecture": "gpt2", "lora": {"rank": 2, "targets": "c_attn"}},
            training={"optimizer": "adamw", "lr": 0.01, "local_steps": 4},
            rounds=2,
            warmup_rounds=0,
        )
    )
    assert result.layout.blocks[-1].name == "classifier"
    assert "classifier" in result.selection[-1]["selected"]
    assert result.metrics[-1]["test_loss"] < result.metrics[0]["test_loss"]


def test_flops_of_adapters_add_up() -> None:
    model = gpt2()
    adapt_(model, settings())
    task, batch = LanguageModelling(model), (torch.arange(18).view(2, 9),)
    layout = ParameterLayout.from_module(model)
    costs = measure_costs(task, layout, batch)
    # Per token: rank 2, into and out of matrices of width 16, in a forward pass and for the gradients.
    numbers = 2 * (16 + 48 + 16 + 16 + 16 + 64 + 64 + 16)
    assert costs.weight.tolist() == [2 * 8 * numbers] * 3
    for mask in np.array(np.meshgrid(*[[False, True]] * 3)).reshape(3, -1).T:
        assert float(costs.backward(mask)) == backward_flops(
            task, layout, batch, np.flatnonzero(mask).tolist()
        )
