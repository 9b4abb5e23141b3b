"""Opens the files of pre-trained models, and turns every error in them into one message."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from io import StringIO
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.hub_access import hub_access
from fedtlu_fast.memory import is_out_of_memory
from fedtlu_fast.models.pretrained_place import FIELD, Place, locate

REASON_LENGTH = 300
PICKLES = (
    "Pickles (pytorch_model.bin) are never opened, because they can run code: if you trust it, load it "
    "with transformers and save it again with save_pretrained."
)


def from_library(load: Callable[..., Any], name: str, what: str, **options: Any) -> Any:
    """Calls a `from_pretrained`: the one place where files that came with a model are opened."""
    from transformers.utils import logging as library

    place = locate(name)
    hidden: AbstractContextManager[object] = nullcontext()
    if not sys.stderr.isatty():
        library.disable_progress_bar()
        # The progress bar for GGUF files ignores this switch.
        hidden = redirect_stderr(StringIO()) if place.file else hidden
    before = library.get_verbosity()
    library.set_verbosity_error()  # hides its tables of weights; `load_model` warns in one line
    try:
        with _one_message(place, what), hidden:
            return load(place.location, trust_remote_code=False, **place.file, **options)
    finally:
        library.set_verbosity(before)


@contextmanager
def _one_message(place: Place, what: str) -> Iterator[None]:
    """Turns any error that a library raises for a model's files into one InputError.

    Damaged and hostile files make libraries raise almost any error; the tokenizers' Rust code even raises
    errors that are not an `Exception`.
    """
    with hub_access(place.on_hub) as unreachable:
        try:
            yield
        except (InputError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            if unreachable and isinstance(error, OSError):
                expected = (
                    f"{what}: a directory here, or a name on the hub, which cannot be asked ({unreachable}); "
                    "the cache holds no copy"
                )
                fix = "Name a directory, or try again with a network."
            else:
                reason = "there is too little memory" if is_out_of_memory(error) else first_line(error)
                expected, fix = f"{place.kind} of {what}; {reason}", _way_on(reason)
            raise InputError(FIELD, place.name, expected, fix) from error


def first_line(error: BaseException) -> str:
    """The message of an exception, in one line."""
    text = (str(error).strip().splitlines() or [""])[0].strip()
    if "`ignore_mismatched_sizes`" in text:  # its message refers to a report that is not shown
        return "some weights have another shape than its config.json says"
    if not isinstance(error, OSError | ValueError | RuntimeError | ImportError) or not text:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= REASON_LENGTH else f"{text[:REASON_LENGTH]}..."


def _way_on(reason: str) -> str:
    if "contains custom code" in reason or "references custom code" in reason:
        return "Code that comes with a model is never run; use a model whose code is in transformers."
    if "safetensors" in reason and ("no file named" in reason or "does not appear" in reason):
        return PICKLES
    return ""
