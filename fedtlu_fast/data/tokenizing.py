"""Text to token ids: a word-level vocabulary of our own, or the tokenizer a model brings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor

from fedtlu_fast.errors import InputError

UNKNOWN = "<unk>"


class TokenizerLike(Protocol):
    """What a tokenizer has to do here."""

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        ...


class WordTokenizer:
    """Words and single punctuation marks; what is not in the vocabulary becomes ``<unk>``."""

    def __init__(self, texts: Iterable[str], size: int) -> None:
        """Learns the `size` most frequent words (ties in alphabetical order), ``<unk>`` among them."""
        self._tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
        trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=[UNKNOWN], show_progress=False)
        self._tokenizer.train_from_iterator(texts, trainer)

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self._tokenizer.encode(text).ids)


class PretrainedTokenizer:
    """The tokenizer that belongs to a pre-trained model."""

    def __init__(self, name: str) -> None:
        """Loads it from the hub or a local directory.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError, ImportError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                "model.pretrained", name, f"a model that brings its tokenizer; {reason}"
            ) from error

    def __len__(self) -> int:
        return len(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens; texts longer than the model are welcome."""
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def windows(ids: list[int], length: int) -> Tensor:
    """Cuts token ids into samples, [N, length + 1] int64: each holds `length` inputs and their successors.

    Samples share one token at their borders, so that every token but the first is predicted once. What
    does not fill a sample at the end is left out.
    """
    count = max(0, (len(ids) - 1) // length)
    flat = torch.tensor(ids[: count * length + 1], dtype=torch.int64)
    return flat.unfold(0, length + 1, length).clone() if count else flat.new_empty(0, length + 1)
