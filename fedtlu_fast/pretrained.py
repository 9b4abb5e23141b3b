"""Pre-trained models and tokenizers through `transformers`: hub names, local directories, GGUF files."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from fedtlu_fast.errors import InputError

FIELD = "model.pretrained"


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
    body = f"{model.base_model_prefix}."
    missing = sorted(key for key in found["missing_keys"] if not new_head or key.startswith(body))
    if missing:
        raise InputError(
            FIELD, name, f"all weights of {what}; {len(missing)} are missing, such as {missing[0]}"
        )
    loaded: nn.Module = model
    return loaded


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
