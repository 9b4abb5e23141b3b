"""Loading of pre-trained weights, and the messages for weights that cannot be loaded."""

import io
import json
import pickle
import sys
from contextlib import suppress

import pytest
import torch
from support.model_zoo import bert, bert_size, gpt2, vit
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
)
from transformers.utils import logging

from fedtlu_fast import InputError
from fedtlu_fast.models import pretrained, pretrained_files
from fedtlu_fast.models.pretrained import load_classifier, load_config, load_model, load_processor
from fedtlu_fast.models.pretrained_place import Place
from fedtlu_fast.models.pretrained_tokenizer import load_tokenizer, tokenize

WHAT = "a causal language model"


@pytest.fixture
def folder(tmp_path):
    model = gpt2(layers=2)
    model.save_pretrained(tmp_path)
    return tmp_path


def test_a_directory_gives_its_weights_in_float32(folder):
    before = logging.get_verbosity()
    model = load_model(AutoModelForCausalLM, str(folder), WHAT)
    assert {param.dtype for param in model.parameters()} == {torch.float32}
    assert logging.get_verbosity() == before


def test_missing_weights_are_refused(folder):
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, "n_layer": 3}))
    with pytest.raises(InputError, match=r"all weights of a causal language model; 12 .*transformer\.h\.2"):
        load_model(AutoModelForCausalLM, str(folder), WHAT)


def test_drawn_weights_and_unused_weights_are_logged(tmp_path, caplog):
    pretrained._say_once.cache_clear()
    BertForMaskedLM(bert_size(2)).save_pretrained(tmp_path)
    load_classifier(AutoModelForSequenceClassification, str(tmp_path), "a classifier", ["x", "y"], 0)
    drawn, head = (record.getMessage() for record in caplog.records)
    assert (
        "4 weights (bert.pooler.dense.bias, bert.pooler.dense.weight, classifier.bias, ...) are not in"
        in drawn
    )
    assert head.endswith("its head is for LABEL_0, LABEL_1; a new one is drawn")
    load_classifier(AutoModelForSequenceClassification, str(tmp_path), "a classifier", ["x", "y"], 0)
    assert len(caplog.records) == 2, "once a process"


def test_weights_of_another_shape_are_refused_except_the_heads(tmp_path):
    bert().save_pretrained(tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    load_classifier(AutoModelForSequenceClassification, str(tmp_path), "a classifier", ["x"] * 5, 0)
    (tmp_path / "config.json").write_text(json.dumps({**facts, "max_position_embeddings": 9}))
    with pytest.raises(
        InputError, match=r"1 have another shape .* such as bert.embeddings.position_embeddings"
    ):
        load_classifier(AutoModelForSequenceClassification, str(tmp_path), "a classifier", ["x", "y"], 0)


def test_layers_of_the_file_that_the_configuration_leaves_out_are_logged(folder, caplog):
    pretrained._say_once.cache_clear()
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, "n_layer": 1}))
    load_model(AutoModelForCausalLM, str(folder), WHAT)
    assert " weights (transformer.h.1." in caplog.records[0].getMessage()


class Bomb:
    def __reduce__(self):
        return (sys.exit, ("a pickle was read",))


def test_pickles_are_never_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"Pickles \(pytorch_model.bin\) are never opened.*save_pretrained"):
        load_model(AutoModelForCausalLM, str(folder), WHAT)


PLANTED = "open({mark!r}, 'w')\nfrom transformers import GPT2Config as C, GPT2LMHeadModel as M\nT = P = C\n"


@pytest.mark.parametrize("model_type", ["gpt2", "unknown"])
def test_code_of_a_model_never_runs_whatever_standard_input_says(folder, tmp_path, monkeypatch, model_type):
    mark = tmp_path / "mark"
    (folder / "planted.py").write_text(PLANTED.format(mark=str(mark)))
    facts = json.loads((folder / "config.json").read_text())
    kinds = {"AutoConfig": "C", "AutoModelForCausalLM": "M", "AutoTokenizer": ["T", "T"]}
    kinds |= {"AutoImageProcessor": "P", "AutoModelForImageClassification": "M"}
    auto = {
        key: f"planted.{own}" if isinstance(own, str) else [f"planted.{one}" for one in own]
        for key, own in kinds.items()
    }
    for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        (folder / file).write_text(json.dumps({**facts, "model_type": model_type, "auto_map": auto}))
    loads = {
        "config": lambda name: load_config(name, WHAT),
        "model": lambda name: load_model(AutoModelForCausalLM, name, WHAT),
        "viewer": lambda name: load_model(AutoModelForImageClassification, name, WHAT),
        "tokenizer": load_tokenizer,
        "processor": load_processor,
    }
    for name, load in loads.items():
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
        with suppress(InputError):  # the code may also belong to `transformers` itself
            load(str(folder))
        assert not mark.exists(), f"{name} ran it"
        assert sys.stdin.read() == "y\n" * 9, "nothing was asked"


def damage(folder, file, content):
    where = folder / file
    if content is None:
        where.unlink()
    elif content == "half":
        where.write_bytes(where.read_bytes()[: where.stat().st_size // 2])
    else:
        where.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", None),
        ("config.json", b""),
        ("config.json", b"\xff\xfe\0garbage"),
        ("config.json", b"[1, 2]"),
        ("config.json", b"null"),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": 7}'),
        ("config.json", b'{"model_type": "gpt2", "n_layer": "two", "n_embd": []}'),
        ("config.json", b'{"model_type": "gpt2", "n_layer": -1, "n_embd": 0, "n_head": 0}'),
        ("config.json", b'{"model_type": "gpt2", "n_embd": 1e400}'),
        ("config.json", b'{"model_type": "gpt2", "n_layer": 1000000000000}'),
        ("config.json", b'{"model_type": "qwen2", "num_hidden_layers": 1000000000000}'),
        ("config.json", b'{"model_type": "gpt2", "transformers_weights": "adapter_model.bin"}'),
        ("config.json", b'{"model_type": "gpt2", "quantization_config": {"quant_method": "gptq"}}'),
        ("config.json", b'{"model_type": "gpt2", "attn_implementation": "somebody/kernel"}'),
        ("config.json", b'{"a":' * 5000),
        ("model.safetensors", None),
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 64),
        ("model.safetensors", "half"),
    ],
)
def test_damaged_models_are_one_message(folder, file, content):
    damage(folder, file, content)
    with pytest.raises(InputError, match=r"^model.pretrained: got ") as raised:
        load_model(AutoModelForCausalLM, str(folder), WHAT)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "file", ["pytorch_model.bin", "../elsewhere/model.safetensors", "/model.safetensors"]
)
def test_an_index_names_no_pickle_and_nothing_outside(folder, monkeypatch, file):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    names = load_model(AutoModelForCausalLM, str(folder), WHAT).state_dict()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, file)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"weights in safetensors files; its .*index.json names "):
        load_model(AutoModelForCausalLM, str(folder), WHAT)


def test_weights_of_another_shape_are_refused_in_plain_words(folder):
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, "vocab_size": 60}))
    with pytest.raises(InputError, match=r"some weights have another shape than its config\.json says"):
        load_model(AutoModelForCausalLM, str(folder), WHAT)


@pytest.mark.parametrize("make", [gpt2, bert])
def test_a_model_without_the_files_of_its_tokenizer_is_refused(tmp_path, make):
    make().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"brings its tokenizer; this tokenizer knows no words"):
        load_tokenizer(str(tmp_path))


def test_an_error_of_a_tokenizer_is_one_message():
    def broken(*_, **__):
        raise TypeError("no\nnumber")

    with pytest.raises(InputError, match=r"whose tokenizer reads the data; TypeError: no$"):
        tokenize(broken, "m", ["a"])


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"model": {"type": "WordLevel"}}', b'{"version": "1.0", "model": 3}', b"\xff"],
)
def test_damaged_tokenizers_are_one_message(folder, content):
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(
        InputError, match=r"^model.pretrained: got .*a model that brings its tokenizer"
    ) as raised:
        load_tokenizer(str(folder))
    assert "\n" not in str(raised.value)


def test_an_error_that_is_not_an_exception_is_one_message_too(monkeypatch, folder):
    """A panic in Rust raises an error that is not an `Exception`."""

    class Panic(BaseException):
        pass

    class Kind:
        @staticmethod
        def from_pretrained(*_, **__):
            raise Panic("index out of bounds")

    monkeypatch.setattr("transformers.AutoTokenizer", Kind)
    with pytest.raises(InputError, match="Panic: index out of bounds"):
        load_tokenizer(str(folder))


def test_image_processors_are_read_or_one_message(tmp_path):
    vit().save_pretrained(tmp_path)
    assert load_processor(str(tmp_path)) is None
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    assert load_processor(str(tmp_path)) == {"image_mean": [0.5]}
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean":')
    with pytest.raises(InputError, match=r"^model.pretrained"):
        load_processor(str(tmp_path))


def test_a_tilde_stands_for_the_home(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    load_config(f"~/{tmp_path.name}", WHAT)


def test_a_gguf_file_is_given_to_transformers_as_a_file_of_its_directory(tmp_path, monkeypatch):
    """Only the arguments are tested here, not whether transformers can read the file."""
    place = Place("m.gguf", str(tmp_path), "a file", file={"gguf_file": "m.gguf"})
    for module in (pretrained, pretrained_files):
        monkeypatch.setattr(module, "locate", lambda name: place)
    monkeypatch.setattr(pretrained, "load_config", lambda name, what: None)
    seen = {}

    class Kind:
        @staticmethod
        def from_pretrained(location, **options):
            seen.update(location=location, **options)
            raise ValueError("GGUF model with architecture clip is not supported yet.\nmore")

    message = (
        r"expected a file of a causal language model; GGUF model with architecture clip is not supported"
    )
    with pytest.raises(InputError, match=message):
        load_model(Kind, "m.gguf", WHAT)
    assert (seen["location"], seen["gguf_file"], seen["dtype"]) == (str(tmp_path), "m.gguf", torch.float32)
    assert seen["trust_remote_code"] is False
