"""Loading pre-trained weights: what is passed on, and what is said when they cannot be loaded."""

import json

import pytest
import torch
from model_zoo import gpt2
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from fedtlu_fast import InputError, pretrained
from fedtlu_fast.pretrained import load_model, load_tokenizer, locate

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
    assert locate(str(folder)) == (str(folder), {})


def test_missing_weights_are_refused(folder):
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, "n_layer": 3}))
    with pytest.raises(InputError, match=r"all weights of a causal language model; 12 .*transformer\.h\.2"):
        load_model(AutoModelForCausalLM, str(folder), WHAT)


def test_a_gguf_file_needs_packages_that_read_it(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    with pytest.raises(
        InputError, match=r"model.pretrained: got '.*model\.gguf'; expected a GGUF file that exists"
    ):
        locate(str(path))
    path.write_bytes(b"GGUF")
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    for load in (lambda name: load_model(AutoModelForCausalLM, name, WHAT), load_tokenizer):
        with pytest.raises(
            InputError, match=r"gguf and accelerate cannot be found. Use pip install gguf accelerate"
        ):
            load(str(path))
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None if name == "gguf" else name)
    with pytest.raises(InputError, match=r"Use pip install gguf\.$"):
        locate(str(path))


def test_a_gguf_file_is_given_to_transformers_as_a_file_of_its_directory(tmp_path, monkeypatch):
    """Whether it then reads the file is its own affair; what it says is passed on."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setattr(pretrained, "find_spec", lambda name: name)
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
        load_model(Kind, str(path), WHAT)
    assert (seen["location"], seen["gguf_file"], seen["dtype"]) == (
        str(tmp_path),
        "model.gguf",
        torch.float32,
    )
