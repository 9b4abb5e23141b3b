"""Pre-trained models and tokenizers through `transformers`: hub names, local directories, GGUF files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import torch_seeded

FIELD = "model.pretrained"
HEAD_SPREAD = 0.02
"""Standard deviation with which the models of `transformers` draw the weights of their heads."""


def load_model(kind: Any, name: str, what: str, *, new_head: bool = False, **options: Any) -> nn.Module:
    """The weights of this name, in float32.

    Args:
        kind: one of the ``AutoModelFor...`` classes of `transformers`.
        name: a hub name, a local directory, or a local ``.gguf`` file (its weights are dequantised).
        what: what `kind` stands for, for the message.
        new_head: whether the weights may lack the head, which is then drawn from torch's generator.
        options: for `from_pretrained`.

    Raises:
        InputError: they cannot be loaded, or some are missing.
    """
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    location, file = locate(name)
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # its table of missing weights: those that matter are an error below
    try:
        model, found = kind.from_pretrained(
            location, dtype=torch.float32, output_loading_info=True, **file, **options
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        place = "file" if file else "directory" if Path(name).is_dir() else "model name or directory"
        raise InputError(FIELD, name, f"a {place} of {what}; {reason}") from error
    finally:
        logging.set_verbosity(before)
    body = f"{_body(model)}."
    missing = sorted(key for key in found["missing_keys"] if not new_head or key.startswith(body))
    if missing:
        raise InputError(
            FIELD, name, f"all weights of {what}; {len(missing)} are missing, such as {missing[0]}"
        )
    loaded: nn.Module = model
    return loaded


def load_classifier(kind: Any, name: str, what: str, labels: Sequence[str], seed: int) -> nn.Module:
    """Pre-trained weights with a head for these labels.

    They keep their head where its labels are these in this order (such as a model that was saved here);
    otherwise it is drawn anew.

    Args:
        kind: one of the ``AutoModelFor...Classification`` classes of `transformers`.
        name: see `load_model`.
        what: what `kind` stands for, for messages.
        labels: their names.
        seed: of what is drawn.

    Raises:
        InputError: see `load_model`.
    """
    from transformers import AutoConfig

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
        location, file = locate(name)
        theirs = AutoConfig.from_pretrained(location, **file).id2label
        if tuple(theirs[code] for code in sorted(theirs)) != tuple(labels):
            for child_name, child in model.named_children():
                if child_name != _body(model):
                    child.apply(_redraw)
    return model


def _body(model: nn.Module) -> str:
    """Name of the part below the head: what the model calls so, or else its largest part."""
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


def load_tokenizer(name: str, **options: Any) -> Any:
    """The tokenizer that belongs to the model of this name.

    Args:
        name: as for `load_model`.
        options: for `from_pretrained`.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    location, file = locate(name)
    try:
        return AutoTokenizer.from_pretrained(location, **file, **options)
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(FIELD, name, f"a model that brings its tokenizer; {reason}") from error


def padding_of(tokenizer: Any, name: str) -> int:
    """The token id with which a tokenizer pads.

    Models that were made without padding pad with the end of a text, which occurs in none.

    Raises:
        InputError: it has neither.
    """
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    padding = next((number for number in ids if number is not None), None)
    if padding is None:
        raise InputError(FIELD, name, "a tokenizer with a padding token or an end-of-text token")
    return int(padding)


def locate(name: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` is called with: a name or directory, and the file in it for GGUF.

    Raises:
        InputError: a GGUF file that does not exist, or a package that reads them is missing.
    """
    if not name.endswith(".gguf"):
        return name, {}
    path = Path(name).expanduser()
    if not path.is_file():
        raise InputError(FIELD, name, "a GGUF file that exists")
    missing = [package for package in ("gguf", "accelerate") if find_spec(package) is None]
    if missing:
        expected = f"the packages that read GGUF files; {' and '.join(missing)} cannot be found"
        raise InputError(FIELD, name, expected, f"Use pip install {' '.join(missing)}.")
    return str(path.parent), {"gguf_file": path.name}


def check_length(model: nn.Module, name: str, window: int) -> None:
    """Makes sure that the model reads samples of this length.

    Raises:
        InputError: they are too long for it.
    """
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and window > longest:
        raise InputError("data.window", window, f"at most {longest}, what {name} reads")
