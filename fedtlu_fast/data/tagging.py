"""Turns tagged sentences into the tensors of a tagging."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.federated import Encoded
from fedtlu_fast.data.population import Indices
from fedtlu_fast.data.sources.source import Read
from fedtlu_fast.data.subwords import SubWords, WholeWords, WordEncoder
from fedtlu_fast.data.tagged import UNKNOWN_GENRE, Sentence, Sentences, cut_test
from fedtlu_fast.errors import InputError

NO_LABEL = -100
"""The code of a token without a tag to predict, which PyTorch's losses ignore."""


def tag_samples(
    found: Read[Sentences],
    *,
    window: int,
    vocabulary: int,
    test_fraction: float,
    tokenizer: str | None = None,
) -> Encoded:
    """Encodes sentences and cuts them into samples.

    The labels are the source's fixed set (for treebanks the 17 tags of Universal Dependencies) and all tags
    that occur in training or test, in alphabetical order. A tag that occurs only in the test is a label as
    well: the model has an output for it, but never learns it.

    Args:
        found: the sentences. If they have no test part, the end of every document is kept for it.
        window: largest number of tokens in one sample.
        vocabulary: number of words in the vocabulary, if no tokenizer is named.
        test_fraction: share of the sentences that is kept for the test.
        tokenizer: name of the pre-trained model whose tokenizer encodes the words; None: a vocabulary of
            words.

    Returns:
        Tokens [N, T] and tags [N, T], both int64; see `cut_sentences`. The attributes are ``document``;
        ``genre``, if it is known; and ``label``, the most frequent tag in the sample.

    Raises:
        InputError: the tokenizer cannot be read, or the window is too short.
    """
    if found.test is None:
        train, test = cut_test(found.train.items, test_fraction)
    else:
        train, test = list(found.train.items), list(found.test.items)
    words = (word for sentence in train for word in sentence.words)
    encoder: WordEncoder = SubWords(tokenizer) if tokenizer else WholeWords(words, vocabulary)
    both = (*train, *test)
    labels = tuple(sorted({*found.train.tags, *(tag for sentence in both for tag in sentence.tags)}))
    tokens, tags, origin = cut_sentences(both, encoder, labels, window)
    cut = int(np.searchsorted(origin, len(train)))
    own = [train[index] for index in origin[:cut]]
    attributes = {"document": _attribute([sentence.document for sentence in own])}
    if any(sentence.genre != UNKNOWN_GENRE for sentence in own):
        attributes["genre"] = _attribute([sentence.genre for sentence in own])
    attributes["label"] = Attribute(_most_frequent(tags[:cut], len(labels)), labels)
    return Encoded(
        train=(torch.from_numpy(tokens[:cut]), torch.from_numpy(tags[:cut])),
        test=(torch.from_numpy(tokens[cut:]), torch.from_numpy(tags[cut:])),
        origin=found.origin,
        inputs=tokens.shape[1],
        outputs=len(labels),
        attributes=attributes,
        labels=labels,
        vocabulary=len(encoder),
        padding=encoder.padding,
    )


def cut_sentences(
    sentences: Sequence[Sentence], encoder: WordEncoder, labels: Sequence[str], window: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Indices]:
    """Cuts sentences into samples of at most `window` tokens, special tokens included.

    A longer sentence is cut between words into samples that are as full as possible; a word that is longer
    than a sample loses its end. A word's tag stands at its first token.

    Args:
        sentences: the sentences.
        encoder: encodes the words.
        labels: names of the tags, in the order of their codes.
        window: largest number of tokens in one sample.

    Returns:
        tokens: [N, T] int64, filled up with `encoder.padding`; T is the length of the longest sample.
        tags: [N, T] int64, the codes of the tags, `NO_LABEL` for tokens without one.
        origin: [N] int64, the place of the sentence from which each sample is cut; ascending.

    Raises:
        InputError: no word fits into the window.
    """
    room = window - len(encoder.before) - len(encoder.after)
    if room < 1:
        raise InputError("data.window", window, f"{window - room + 1} or more, with the model's own tokens")
    codes = {label: code for code, label in enumerate(labels)}
    rows: list[tuple[list[int], list[int]]] = []
    origin: list[int] = []
    for index, (sentence, encoded) in enumerate(
        zip(sentences, encoder.encode([own.words for own in sentences]), strict=True)
    ):
        left = 0
        for word, tag in zip(encoded, sentence.tags, strict=True):
            ids = word[:room]
            if len(ids) > left:
                rows.append(([], []))
                origin.append(index)
                left = room
            rows[-1][0].extend(ids)
            rows[-1][1].extend([codes[tag], *[NO_LABEL] * (len(ids) - 1)])
            left -= len(ids)
    head, tail = len(encoder.before), len(encoder.after)
    longest = max((len(ids) for ids, _ in rows), default=0) + head + tail
    tokens = np.full((len(rows), longest), encoder.padding, np.int64)
    tags = np.full((len(rows), longest), NO_LABEL, np.int64)
    for row, (ids, own) in enumerate(rows):
        tokens[row, : head + len(ids) + tail] = [*encoder.before, *ids, *encoder.after]
        tags[row, head : head + len(own)] = own
    return tokens, tags, np.array(origin, np.int64)


def _attribute(values: Sequence[str]) -> Attribute:
    names = {name: code for code, name in enumerate(dict.fromkeys(values))}
    return Attribute(np.array([names[value] for value in values], np.int64), tuple(names))


def _most_frequent(tags: NDArray[np.int64], labels: int) -> Indices:
    """Returns [N] int64, each sample's most frequent label; of equally frequent ones the first."""
    found = np.empty(len(tags), np.int64)
    # In parts, because a table of all samples by all labels may not fit into memory.
    size = max(1, 2**22 // labels)
    for first in range(0, len(tags), size):
        part = tags[first : first + size]
        row, place = np.nonzero(part != NO_LABEL)
        counts = np.bincount(row * labels + part[row, place], minlength=len(part) * labels)
        found[first : first + size] = counts.reshape(len(part), labels).argmax(axis=1)
    return found
