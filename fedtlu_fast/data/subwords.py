"""Encodes the words of a tagging as token ids: one id for each word, or a pre-trained model's sub-words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from typing_extensions import override

from fedtlu_fast.data.tokenizing import Vocabulary
from fedtlu_fast.errors import InputError
from fedtlu_fast.models.pretrained_place import FIELD
from fedtlu_fast.models.pretrained_tokenizer import load_tokenizer, padding_of, tokenize


class WordEncoder(Protocol):
    """Encodes words as token ids, and names the special ids around them in a sample.

    Attributes:
        padding: the id that fills up shorter samples; no word has it.
        before: ids at the beginning of every sample.
        after: ids at the end of every sample.
    """

    padding: int
    before: list[int]
    after: list[int]

    def __len__(self) -> int:
        """Number of token ids."""
        ...

    def encode(self, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """Returns the ids of every word of every sentence; each word has one id or more."""
        ...


class WholeWords:
    """Encodes each word as one id, from the vocabulary of the training words."""

    padding = 0

    @override
    def __init__(self, words: Iterable[str], size: int) -> None:
        self.before: list[int] = []
        self.after: list[int] = []
        self._vocabulary = Vocabulary(words, size, padded=True)

    def __len__(self) -> int:
        return len(self._vocabulary)

    def encode(self, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """See `WordEncoder.encode`."""
        return [[[number] for number in self._vocabulary.ids(words)] for words in sentences]


class SubWords:
    """Encodes words with the sub-words and special tokens of a pre-trained model's tokenizer."""

    def __init__(self, name: str) -> None:
        """Loads the tokenizer.

        Raises:
            InputError: the model has no tokenizer; it is not a fast one (only those say which sub-words
                belong to which word); or it has no token that can serve as padding.
        """
        # Byte-level tokenizers need add_prefix_space for input that is split into words; others ignore it.
        self._name, self._tokenizer = name, load_tokenizer(name, add_prefix_space=True)
        if not getattr(self._tokenizer, "is_fast", False):
            raise InputError(
                FIELD, name, "a model with a fast tokenizer (tokenizer.json), to tell words apart"
            )
        self.padding = padding_of(self._tokenizer, name)
        example = tokenize(self._tokenizer, name, [["a"]], is_split_into_words=True)
        ids, words = example["input_ids"][0], example.word_ids(0)
        inside = [place for place, word in enumerate(words) if word is not None]
        if not inside:
            raise InputError(FIELD, name, "a tokenizer that knows the word 'a', or has an unknown token")
        self.before, self.after = ids[: inside[0]], ids[inside[-1] + 1 :]

    def __len__(self) -> int:
        return len(self._tokenizer)

    def encode(self, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
        """See `WordEncoder.encode`. A word for which the tokenizer returns no id becomes its unknown token.

        Raises:
            InputError: the tokenizer returns no id for a word and has no unknown token.
        """
        given = [list(words) for words in sentences]
        options = {"is_split_into_words": True, "add_special_tokens": False}
        encoded = tokenize(self._tokenizer, self._name, given, **options)
        found: list[list[list[int]]] = []
        for row, words in enumerate(given):
            pieces: list[list[int]] = [[] for _ in words]
            for number, word in zip(encoded["input_ids"][row], encoded.word_ids(row), strict=True):
                pieces[word].append(number)
            for place, piece in enumerate(pieces):
                if not piece:
                    piece.append(self._unknown(words[place]))
            found.append(pieces)
        return found

    def _unknown(self, word: str) -> int:
        number = self._tokenizer.unk_token_id
        if number is None:
            raise InputError(
                FIELD, self._name, f"a tokenizer that knows the word {word!r}, or has an unknown token"
            )
        return int(number)
