"""Tokenizers that come with pre-trained models."""

from __future__ import annotations

from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.models.pretrained_files import first_line, from_library
from fedtlu_fast.models.pretrained_place import FIELD, locate

SPECIAL = 200
"""A tokenizer with more tokens than this has some that are not special."""


def load_tokenizer(name: str, **options: Any) -> Any:
    """Loads the tokenizer that belongs to the model of this name.

    Args:
        name: as for `load_model`.
        options: for `from_pretrained`.

    Raises:
        InputError: the model has no tokenizer, or it cannot be read.
    """
    from transformers import AutoTokenizer

    what = "a model that brings its tokenizer"
    tokenizer = from_library(AutoTokenizer.from_pretrained, name, what, **options)
    if _is_empty(tokenizer):  # without its files, the library makes a tokenizer that knows no words
        raise InputError(FIELD, name, f"{locate(name).kind} of {what}; this tokenizer knows no words")
    return tokenizer


def tokenize(tokenizer: Any, name: str, texts: Any, **options: Any) -> Any:
    """Calls a tokenizer.

    Args:
        tokenizer: the result of `load_tokenizer`.
        name: the name of its model, for the message.
        texts: the tokenizer's first argument.
        options: its other arguments.

    Raises:
        InputError: it cannot read the texts, because its files are damaged.
    """
    try:
        return tokenizer(texts, verbose=False, **options)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # also errors that are not an Exception, as in `pretrained_files`
        expected = f"a model whose tokenizer reads the data; {first_line(error)}"
        raise InputError(FIELD, name, expected) from error


def padding_of(tokenizer: Any, name: str) -> int:
    """Returns the token id with which a tokenizer pads.

    A model that was made without padding pads with the end-of-text token, which no text contains.

    Raises:
        InputError: the tokenizer has neither token.
    """
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    padding = next((number for number in ids if isinstance(number, int)), None)
    if padding is None:
        raise InputError(FIELD, name, "a tokenizer with a padding token or an end-of-text token")
    return padding


def _is_empty(tokenizer: Any) -> bool:
    if tokenizer.vocab_size > SPECIAL:
        return False
    special = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens}
    return len(set(tokenizer.get_vocab()) - special) < 2
