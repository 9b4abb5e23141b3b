"""Pre-trained models through `transformers`: hub names, local directories, GGUF files.

No code that comes with a model is run: neither its own modules (``auto_map``) nor pickles
(``pytorch_model.bin``).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import nn

from fedtlu_fast.errors import InputError
from fedtlu_fast.models.pretrained_files import PICKLES, from_library
from fedtlu_fast.models.pretrained_place import FIELD, locate
from fedtlu_fast.randomness import torch_seeded

logger = logging.getLogger("fedtlu_fast")

HEAD_SPREAD = 0.02
"""Standard deviation with which the models of `transformers` draw the weights of their heads."""
POOLER = ".pooler."
"""Layers of this name between body and head may be missing: some models were trained without them."""
MOST_LAYERS = 10_000
"""Largest number of layers; without a limit, a configuration of a few bytes could ask for endlessly many."""


def load_model(kind: Any, name: str, what: str, *, new_head: bool = False, **options: Any) -> nn.Module:
    """Loads pre-trained weights in float32.

    A warning names the weights that the file lacks, which are drawn from torch's generator, and the weights
    of the file that are not used.

    Args:
        kind: one of the ``AutoModelFor...`` classes of `transformers`.
        name: a hub name, a local directory, or a local ``.gguf`` file (its weights are dequantised).
        what: the kind of model in words, for the message.
        new_head: whether the file may lack the head.
        options: for `from_pretrained`.

    Raises:
        InputError: the weights cannot be loaded, or weights of the body are missing or have other shapes.
    """
    load_config(name, what)
    _check_index(name, what)
    model, found = from_library(
        kind.from_pretrained,
        name,
        what,
        dtype=torch.float32,
        output_loading_info=True,
        use_safetensors=True,
        **options,
    )
    if found["error_msgs"]:
        raise InputError(FIELD, name, f"weights of {what}; {found['error_msgs'][0]}")
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InputError(FIELD, name, f"a whole model of {what}; this is an adapter for one")
    body = f"{_body(model)}."
    missing = sorted(found["missing_keys"])
    other_shapes = sorted(str(own[0]) for own in found["mismatched_keys"])
    for keys, fault in (
        (missing, "are missing"),
        (other_shapes, "have another shape than its config.json says"),
    ):
        needed = [key for key in keys if not new_head or (key.startswith(body) and POOLER not in key)]
        if needed:
            raise InputError(
                FIELD, name, f"all weights of {what}; {len(needed)} {fault}, such as {needed[0]}"
            )
    if drawn := sorted({*missing, *other_shapes}):
        _say_once(f"{FIELD}={name}: {_some(drawn)} not in its file and drawn anew, to be trained here")
    if unused := sorted(found["unexpected_keys"]):
        # The head of another task is left out on purpose, without a warning.
        lost = any(key.startswith(body) for key in unused) or not new_head
        level = logging.WARNING if lost else logging.INFO
        _say_once(f"{FIELD}={name}: {_some(unused)} in its file but no part of {what}, and not used", level)
    loaded: nn.Module = model
    return loaded


def load_classifier(kind: Any, name: str, what: str, labels: Sequence[str], seed: int) -> nn.Module:
    """Loads pre-trained weights with a head for these labels.

    The head of the file is kept if its labels are these, in this order (as in a model that this package
    saved). Otherwise a new head is drawn, and a warning says so.

    Args:
        kind: one of the ``AutoModelFor...Classification`` classes of `transformers`.
        name: see `load_model`.
        what: the kind of model in words, for messages.
        labels: names of the labels.
        seed: the seed of the weights that are drawn.

    Raises:
        InputError: see `load_model`.
    """
    with torch_seeded(seed, "initial weights"):
        model = load_model(
            kind,
            name,
            what,
            new_head=True,
            id2label=dict(enumerate(labels)),
            label2id={label: code for code, label in enumerate(labels)},
            ignore_mismatched_sizes=True,
        )
        theirs = load_config(name, what).id2label
        named = tuple(theirs[code] for code in sorted(theirs)) if isinstance(theirs, Mapping) else ()
        if named != tuple(labels):
            for child_name, child in model.named_children():
                if child_name != _body(model):
                    child.apply(_redraw)
            shown = ", ".join(map(str, named[:5])) + (", ..." if len(named) > 5 else "")
            _say_once(f"{FIELD}={name}: its head is for {shown or 'no labels'}; a new one is drawn")
    return model


def load_config(name: str, what: str) -> Any:
    """Loads a model's configuration.

    Args:
        name: see `load_model`.
        what: the kind of model in words, for the message.

    Raises:
        InputError: the configuration cannot be read, or asks for quantised weights, pickles or code of its
            own.
    """
    from transformers import AutoConfig, PreTrainedConfig

    place = locate(name)
    if not (place.on_hub or place.file or (Path(place.location) / "config.json").is_file()):
        raise InputError(FIELD, name, f"a directory of {what}; it has no config.json")
    # The raw file is checked first, because some configurations build a list of all layers when loaded.
    written = from_library(PreTrainedConfig.get_config_dict, name, what)[0]
    if not isinstance(written, Mapping):
        raise InputError(FIELD, name, f"{place.kind} of {what}; its config.json is no mapping")
    _check_layers(name, written)
    config = from_library(AutoConfig.from_pretrained, name, what)
    asked = {
        "quantization_config": "weights in full precision; Save a dequantised copy.",
        "transformers_weights": "weights in model.safetensors",
    }
    for key, expected in asked.items():
        if getattr(config, key, None) is not None and not place.file:
            expected, _, fix = expected.partition("; ")
            raise InputError(FIELD, name, f"{expected}; its config.json has {key}", fix)
    if "/" in str(getattr(config, "_attn_implementation", "")):
        raise InputError(FIELD, name, "no program of its own; its config.json names one for attention")
    return config


def _check_layers(name: str, written: Mapping[str, Any]) -> None:
    for key, value in written.items():
        if isinstance(value, Mapping):
            _check_layers(name, value)
        elif "layer" in key and isinstance(value, int) and value > MOST_LAYERS:
            raise InputError(
                FIELD, name, f"at most {MOST_LAYERS:,} layers; its configuration says {key}={value:,}"
            )


def _check_index(name: str, what: str) -> None:
    """Raises unless an index names only safetensors files beside it: the library would open any file."""
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, cached_file

    def read(place: str, **_: Any) -> Any:
        try:
            path = cached_file(place, SAFE_WEIGHTS_INDEX_NAME)
        except OSError:  # the model has no index
            return None
        return json.loads(Path(path).read_bytes()) if path else None

    index = None if locate(name).file else from_library(read, name, what)
    files = index.get("weight_map") if isinstance(index, Mapping) else None
    for file in files.values() if isinstance(files, Mapping) else ():
        path = PurePosixPath(str(file))
        if path.suffix != ".safetensors" or path.is_absolute() or ".." in path.parts:
            expected = f"weights in safetensors files; its {SAFE_WEIGHTS_INDEX_NAME} names {file}"
            raise InputError(FIELD, name, expected, PICKLES)


def load_processor(name: str) -> Mapping[str, Any] | None:
    """Reads the settings of a model's image processor; None if the model has none.

    Raises:
        InputError: it cannot be read.
    """
    from transformers.image_processing_utils import BaseImageProcessor

    def read(place: str, **_: Any) -> Mapping[str, Any] | None:
        try:
            settings: Mapping[str, Any] = BaseImageProcessor.get_image_processor_dict(place)[0]
        except OSError as error:
            if str(error).startswith("Can't load image processor"):  # the model has none
                return None
            raise
        return settings

    found: Mapping[str, Any] | None = from_library(read, name, "a model that classifies images")
    if not isinstance(found, Mapping | None):
        raise InputError(FIELD, name, "a model whose image processor's file is a mapping")
    return found


def _body(model: nn.Module) -> str:
    """The name of the part below the head: the model's ``base_model_prefix``, or its largest part."""
    named = str(model.base_model_prefix)
    if isinstance(getattr(model, named, None), nn.Module):
        return named
    sizes = {name: sum(param.numel() for param in own.parameters()) for name, own in model.named_children()}
    return max(sizes, key=lambda name: sizes[name])


def _redraw(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=HEAD_SPREAD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} weight{'s' if len(names) > 1 else ''} ({shown}) {'are' if len(names) > 1 else 'is'}"


@lru_cache(maxsize=256)
def _say_once(message: str, level: int = logging.WARNING) -> None:
    """Logs a message once per process, because the arms of a comparison load the same model many times."""
    logger.log(level, message)
