"""A tagging's data as tensors: sentences, cut into samples."""

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
"""In place of a tag where there is none to predict; PyTorch's losses leave it out."""


def tag_samples(
    found: Read[Sentences],
    *,
    window: int,
    vocabulary: int,
    test_fraction: float,
    tokenizer: str | None = None,
) -> Encoded:
    """Encodes and cuts sentences.

    The labels are the source's own (the 17 of Universal Dependencies for treebanks) and all that occur, in
    training or test, in alphabetical order. One that only the test has is a label like any other: the model
    can predict it but never sees it, so it counts as wrong.

    Args:
        found: the sentences; without a test, the end of every document is kept for it.
        window: tokens in one sample at most.
        vocabulary: words kept if no tokenizer is named.
        test_fraction: the share that is kept for the test.
        tokenizer: the pre-trained model whose tokenizer is taken; None: words are numbered.

    Returns:
        Tokens [N, T] and tags [N, T], both int64; see `cut_sentences`. The attributes are, the most useful
        first: ``document``, ``genre`` where it is known, ``label`` (the most frequent tag in the sample).

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
    """Sentences as samples of at most `window` tokens, special tokens counted.

    A sentence that is longer is cut between words, each sample as full as can be; a word that is longer
    than a sample loses its end. A word's label stands at its first token.

    Args:
        sentences: to be encoded.
        encoder: of the words.
        labels: names of the tags, by code.
        window: tokens in one sample.

    Returns:
        tokens: [N, T], T the longest sample's length, filled up with `encoder.padding`.
        tags: [N, T], codes, `NO_LABEL` where there is none.
        origin: [N], the sentence that each sample is from; ascending.

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
    """[N]: every sample's most frequent label, the first in order where several are."""
    found = np.empty(len(tags), np.int64)
    # Part by part: a table of all samples by all labels may not fit into memory.
    size = max(1, 2**22 // labels)
    for first in range(0, len(tags), size):
        part = tags[first : first + size]
        row, place = np.nonzero(part != NO_LABEL)
        counts = np.bincount(row * labels + part[row, place], minlength=len(part) * labels)
        found[first : first + size] = counts.reshape(len(part), labels).argmax(axis=1)
    return found
