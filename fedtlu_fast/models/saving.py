"""Writes a trained model so that other tools read it: whole, as peft's adapters, or as plain tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file, save_model
from torch import nn

from fedtlu_fast.errors import InputError
from fedtlu_fast.models.lora import adapter_layers, is_peft, merged
from fedtlu_fast.models.pretrained import load_processor
from fedtlu_fast.models.pretrained_files import from_library
from fedtlu_fast.models.pretrained_place import locate
from fedtlu_fast.models.pretrained_tokenizer import load_tokenizer
from fedtlu_fast.wording import either

Kind = Literal["model", "adapters", "tensors"]
WEIGHTS = "model.safetensors"
WHOLE_FILES = ("config.json", WEIGHTS, f"{WEIGHTS}.index.json")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
TASK_TYPES = {"language_modelling": "CAUSAL_LM", "tagging": "TOKEN_CLS", "text_classification": "SEQ_CLS"}
"""What peft calls our tasks."""
FIELD = either("merge", "--merge")
MERGE = f"Write a whole model, with {either('merge=True', '--merge')}."


@dataclass(frozen=True)
class Origin:
    """What a model was made from.

    Attributes:
        task: the setting ``task``; ``own`` for a model that was given in Python.
        base: name or directory of the pre-trained model; None for a model that began with random weights.
    """

    task: str
    base: str | None


def save(model: nn.Module, origin: Origin, directory: Path, *, merge: bool = False) -> Kind:
    """Writes a model into a directory; a pre-trained model's tokenizer or image processor goes with it.

    Args:
        model: the trained model.
        origin: what it was made from.
        directory: an existing directory.
        merge: whether LoRA adapters are added to the weights that they belong to.

    Returns:
        What was written: ``model`` (for `from_pretrained`), ``adapters`` (for peft's
        ``PeftModel.from_pretrained``), or ``tensors`` (the state dict, for models of no library).

    Raises:
        InputError: The directory holds a model of another kind, which `from_pretrained` would mix with this
            one; or the adapters alone would not give this model.
    """
    whole: Any = merged(model) if merge else model
    injected = not is_peft(whole) and bool(adapter_layers(whole))
    kind: Kind = "tensors"
    if injected or hasattr(whole, "save_pretrained"):
        kind = "adapters" if injected or is_peft(whole) else "model"
    for name in ADAPTER_FILES if kind != "adapters" else WHOLE_FILES:
        if (directory / name).exists():
            expected = f"a directory without {name}, which is of another kind of model than this one"
            raise InputError("directory", str(directory), expected, "Choose another.")
    if injected:
        _save_adapters(model, origin, directory)
    elif kind == "tensors":
        save_model(whole, str(directory / WEIGHTS))
    else:
        whole.save_pretrained(directory)
    if origin.base is not None and kind != "tensors":
        _save_reader(origin, directory)
    return kind


def class_name(model: nn.Module) -> str:
    """Returns the name of a model's class; of peft's models, that of the model inside."""
    inside: Any = model.get_base_model() if is_peft(model) else model  # type: ignore[operator]
    return type(inside).__name__


def _save_adapters(model: nn.Module, origin: Origin, directory: Path) -> None:
    """Writes the adapters of `add_adapters_`, and the head if it was trained, as peft does.

    Raises:
        InputError: There is no base to put them on, or it has other frozen weights than the run's model.
    """
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    base = _checked_base(model, origin)
    layers = adapter_layers(model)
    first = next(iter(layers.values()))
    trained = {name: own.detach() for name, own in model.named_parameters() if own.requires_grad}
    heads = dict.fromkeys(name.partition(".")[0] for name in trained if ".lora_" not in name)
    config = LoraConfig(
        r=first.r["default"],
        lora_alpha=first.lora_alpha["default"],
        target_modules=list(layers),
        modules_to_save=list(heads) or None,
        bias="none",
        fan_in_fan_out=isinstance(first.get_base_layer(), Conv1D),  # GPT-2 stores its matrices transposed
        task_type=TASK_TYPES.get(origin.task),
        base_model_name_or_path=base,
        inference_mode=True,
    )
    config.save_pretrained(str(directory))
    tensors = {
        f"base_model.model.{name.replace('.default.', '.') if '.lora_' in name else name}": own.contiguous()
        for name, own in trained.items()
    }
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})


def _checked_base(model: nn.Module, origin: Origin) -> str:
    """Returns where the base lies, once its weights are known to be those that the run has kept frozen."""
    if origin.base is None:
        expected = "True for a model without a pre-trained base, whose adapters alone would be of no use"
        raise InputError(FIELD, False, expected, MERGE)
    place = locate(origin.base)
    if place.file:
        raise InputError(FIELD, False, f"True for a base in a GGUF file, which peft cannot open; {MERGE}")
    settings: Any = model.config
    plain = from_library(
        type(model).from_pretrained,  # type: ignore[attr-defined]
        origin.base,
        "the base of these adapters",
        config=settings,
        dtype=torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
    )
    theirs = dict(plain.named_parameters())
    for name, own in model.named_parameters():
        other = theirs.get(name.replace(".base_layer.", "."))
        if not own.requires_grad and (other is None or not torch.equal(own.cpu(), other)):
            expected = f"True, because {origin.base} lacks {name}, or has changed there since the run"
            raise InputError(FIELD, False, expected, MERGE)
    return place.location


def _save_reader(origin: Origin, directory: Path) -> None:
    """Writes the tokenizer of a text model, or the settings of an image model's processor."""
    assert origin.base is not None
    if origin.task == "image_classification":
        if (processor := load_processor(origin.base)) is not None:
            text = json.dumps(processor, indent=2, default=str) + "\n"
            (directory / "preprocessor_config.json").write_text(text, encoding="utf-8")
    elif origin.task != "own":
        load_tokenizer(origin.base).save_pretrained(str(directory))
