"""Tokenizers that come with pre-trained models."""

from __future__ import annotations

from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.pretrained import first_line, from_library
from fedtlu_fast.pretrained_place import FIELD, locate

SPECIAL = 200
"""A tokenizer with more tokens has some that are not special."""


def load_tokenizer(name: str, **options: Any) -> Any:
    """Loads the tokenizer that belongs to the model of this name.

    Args:
        name: as for `load_model`.
        options: for `from_pretrained`.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    what = "a model that brings its tokenizer"
    tokenizer = from_library(AutoTokenizer.from_pretrained, name, what, **options)
    if _is_empty(tokenizer):  # without its files, the library makes one for which every word is unknown
        raise InputError(FIELD, name, f"{locate(name).kind} of {what}; this tokenizer knows no words")
    return tokenizer


def tokenize(tokenizer: Any, name: str, texts: Any, **options: Any) -> Any:
    """Calls a tokenizer.

    Args:
        tokenizer: from `load_tokenizer`.
        name: of its model, for the message.
        texts: what it takes.
        options: likewise.

    Raises:
        InputError: it cannot read them, since its files are damaged.
    """
    try:
        return tokenizer(texts, verbose=False, **options)
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # also what is no Exception, as in `_one_message`
        expected = f"a model whose tokenizer reads the data; {first_line(error)}"
        raise InputError(FIELD, name, expected) from error


def padding_of(tokenizer: Any, name: str) -> int:
    """Gives the token id with which a tokenizer pads.

    Models that were made without padding pad with the end of a text, which occurs in none.

    Raises:
        InputError: it has neither.
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
