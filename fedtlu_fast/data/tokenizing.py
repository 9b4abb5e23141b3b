"""Encodes text as token ids, with a vocabulary of words or with a pre-trained model's tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from tokenizers import Tokenizer, models, trainers
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.data.words import words_and_marks
from fedtlu_fast.models.pretrained_tokenizer import load_tokenizer, tokenize

UNKNOWN, END_OF_LINE = "<unk>", "<eos>"


class TokenizerLike(Protocol):
    """The interface of a tokenizer."""

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text, without special tokens."""
        ...


class WordTokenizer:
    """Encodes words and single marks (see `words_and_marks`); unknown ones become ``<unk>``."""

    def __init__(self, texts: Iterable[str], size: int) -> None:
        """Learns the most frequent words (ties in alphabetical order), `size` with ``<unk>``."""
        self._tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        self._tokenizer.pre_tokenizer = words_and_marks
        trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=[UNKNOWN], show_progress=False)
        self._tokenizer.train_from_iterator(texts, trainer)

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text."""
        return list(self._tokenizer.encode(text).ids)


class Vocabulary:
    """Numbers the most frequent words; ``<unk>`` stands for all others."""

    def __init__(self, words: Iterable[str], size: int, *, padded: bool = False) -> None:
        """Learns the most frequent words (ties in alphabetical order).

        Args:
            words: all words of the training text, with repetitions.
            size: number of ids, with ``<unk>`` and padding.
            padded: whether id 0 is padding, which no word has. Then ``<unk>`` is 1, otherwise 0.
        """
        counts = Counter(words)
        del counts[UNKNOWN]
        self._unknown = int(padded)
        kept = sorted(counts, key=lambda word: (-counts[word], word))[: size - 1 - padded]
        self._ids = {word: number for number, word in enumerate(kept, start=1 + padded)}

    def __len__(self) -> int:
        return 1 + self._unknown + len(self._ids)

    def ids(self, words: Iterable[str]) -> list[int]:
        """Returns the ids of the words."""
        return [self._ids.get(word, self._unknown) for word in words]


class LineTokenizer:
    """Encodes words between white space as they are, and adds ``<eos>`` at the end of every line."""

    @override
    def __init__(self, texts: Iterable[str], size: int) -> None:
        self._vocabulary = Vocabulary((word for text in texts for word in _words_of_lines(text)), size)

    def __len__(self) -> int:
        return len(self._vocabulary)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text."""
        return self._vocabulary.ids(_words_of_lines(text))


def _words_of_lines(text: str) -> Iterator[str]:
    for line in text.removesuffix("\n").split("\n"):
        yield from line.split()
        yield END_OF_LINE


class PretrainedTokenizer:
    """Encodes text with the tokenizer of a pre-trained model."""

    def __init__(self, name: str) -> None:
        """Loads the tokenizer from the hub, a local directory or a GGUF file.

        Raises:
            InputError: the model has no tokenizer, or it cannot be read.
        """
        self._name, self._tokenizer = name, load_tokenizer(name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        """Returns the token ids of a text of any length, without special tokens."""
        return list(tokenize(self._tokenizer, self._name, text, add_special_tokens=False)["input_ids"])


def windows(ids: list[int], length: int) -> Tensor:
    """Cuts token ids into samples [N, length + 1] int64: `length` inputs, each followed by its target.

    Neighbouring samples share one token, so that every token except the first is predicted once. Tokens at
    the end that do not fill a sample are left out.
    """
    count = max(0, (len(ids) - 1) // length)
    flat = torch.tensor(ids[: count * length + 1], dtype=torch.int64)
    return flat.unfold(0, length + 1, length).clone() if count else flat.new_empty(0, length + 1)
