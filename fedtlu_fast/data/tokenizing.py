"""Text to token ids: a word-level vocabulary of our own, or the tokenizer a model brings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from tokenizers import Tokenizer, models, trainers
from torch import Tensor

from fedtlu_fast.data.words import words_and_marks
from fedtlu_fast.models.pretrained_tokenizer import load_tokenizer, tokenize

UNKNOWN, END_OF_LINE = "<unk>", "<eos>"


class TokenizerLike(Protocol):
    """What a tokenizer has to do here."""

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        ...


class WordTokenizer:
    """Words and single marks (see `words_and_marks`); one that is not in the vocabulary becomes ``<unk>``."""

    def __init__(self, texts: Iterable[str], size: int) -> None:
        """Learns the `size` most frequent words (ties in alphabetical order), ``<unk>`` among them."""
        self._tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        self._tokenizer.pre_tokenizer = words_and_marks
        trainer = trainers.WordLevelTrainer(vocab_size=size, special_tokens=[UNKNOWN], show_progress=False)
        self._tokenizer.train_from_iterator(texts, trainer)

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self._tokenizer.encode(text).ids)


class Vocabulary:
    """Words that are given as such, by number; ``<unk>`` stands for all that are not among them."""

    def __init__(self, words: Iterable[str], size: int, *, padded: bool = False) -> None:
        """Learns the `size` most frequent words (ties in alphabetical order), ``<unk>`` among them.

        Args:
            words: of the training text, each as often as it occurs.
            size: numbers in all.
            padded: 0 is padding, which no word has; ``<unk>`` is then 1, otherwise 0.
        """
        counts = Counter(words)
        del counts[UNKNOWN]
        self._unknown = int(padded)
        kept = sorted(counts, key=lambda word: (-counts[word], word))[: size - 1 - padded]
        self._ids = {word: number for number, word in enumerate(kept, start=1 + padded)}

    def __len__(self) -> int:
        return 1 + self._unknown + len(self._ids)

    def ids(self, words: Iterable[str]) -> list[int]:
        """The words' numbers."""
        return [self._ids.get(word, self._unknown) for word in words]


class LineTokenizer:
    """Words as they are, between white space, and ``<eos>`` at the end of every line."""

    def __init__(self, texts: Iterable[str], size: int) -> None:
        """See `Vocabulary`."""
        self._vocabulary = Vocabulary((word for text in texts for word in _words_of_lines(text)), size)

    def __len__(self) -> int:
        return len(self._vocabulary)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self._vocabulary.ids(_words_of_lines(text))


def _words_of_lines(text: str) -> Iterator[str]:
    for line in text.removesuffix("\n").split("\n"):
        yield from line.split()
        yield END_OF_LINE


class PretrainedTokenizer:
    """The tokenizer that belongs to a pre-trained model."""

    def __init__(self, name: str) -> None:
        """Loads it from the hub, a local directory or a GGUF file.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        self._name, self._tokenizer = name, load_tokenizer(name)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens; texts longer than the model are welcome."""
        return list(tokenize(self._tokenizer, self._name, text, add_special_tokens=False)["input_ids"])


def windows(ids: list[int], length: int) -> Tensor:
    """Cuts token ids into samples, [N, length + 1] int64: each holds `length` inputs and their successors.

    Samples share one token at their borders, so that every token but the first is predicted once. What
    does not fill a sample at the end is left out.
    """
    count = max(0, (len(ids) - 1) // length)
    flat = torch.tensor(ids[: count * length + 1], dtype=torch.int64)
    return flat.unfold(0, length + 1, length).clone() if count else flat.new_empty(0, length + 1)
