"""A tagging's data as tensors: sentences from the source that the settings name, cut into samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.hub.sentences import load_tagged_hub
from fedtlu_fast.data.population import Batch, Indices
from fedtlu_fast.data.reading import UNPACKED_LIMIT
from fedtlu_fast.data.sources.pycode import load_pycode
from fedtlu_fast.data.sources.udpos import load_treebank
from fedtlu_fast.data.splits import Origin
from fedtlu_fast.data.subwords import SubWords, WholeWords, WordEncoder
from fedtlu_fast.data.tagged import UNKNOWN_GENRE, Corpus, Sentence
from fedtlu_fast.errors import InputError

NO_LABEL = -100
"""In place of a tag where there is none to predict; PyTorch's losses leave it out."""


@dataclass(frozen=True)
class TaggedSamples:
    """Samples and what is known of them.

    Attributes:
        train: tokens [N, T] and labels [N, T], both int64; see `cut_sentences`.
        test: the same, [M, T].
        attributes: of the training samples, the most useful first: ``document``, ``genre`` where it is known,
            ``label`` (the most frequent tag in the sample).
        labels: names of the tags.
        vocabulary: number of token ids.
        padding: the token id that fills up samples.
        origin: of both.
    """

    train: Batch
    test: Batch
    attributes: Mapping[str, Attribute]
    labels: tuple[str, ...]
    vocabulary: int
    padding: int
    origin: Origin | None


def load_corpus(source: str, test_fraction: float, limit: int = UNPACKED_LIMIT) -> Corpus:
    """Reads tagged sentences.

    Args:
        source: ``udpos:PATH``, ``hf:NAME[:CONFIG][@REVISION]`` or ``pycode``.
        test_fraction: share kept for the test where the source has no test of its own.
        limit: see `read_bytes`.

    Raises:
        InputError: an unknown source, or one that cannot be read.
    """
    kind, _, rest = source.partition(":")
    if kind == "udpos" and rest:
        return load_treebank(rest, test_fraction, limit)
    if kind == "hf" and rest:
        return load_tagged_hub(rest, test_fraction)
    if source == "pycode":
        return load_pycode(test_fraction)
    raise InputError("data.source", source, "udpos:PATH, hf:NAME or pycode, for task=tagging")


def tag_samples(config: RunConfig) -> TaggedSamples:
    """Reads, encodes and cuts the sentences of the settings' source.

    The labels are the source's own (the 17 of Universal Dependencies for treebanks) and all that occur, in
    training or test, in alphabetical order. One that only the test has is a label like any other: the model
    can predict it but never sees it, so it counts as wrong.

    Raises:
        InputError: the source or the model's tokenizer cannot be read, or the window is too short.
    """
    corpus = load_corpus(config.data.source, config.data.test_fraction, config.data.unpacked_limit)
    name = config.model.pretrained
    words = (word for sentence in corpus.train for word in sentence.words)
    encoder: WordEncoder = SubWords(name) if name else WholeWords(words, config.data.vocabulary)
    both = (*corpus.train, *corpus.test)
    labels = tuple(sorted({*corpus.tags, *(tag for sentence in both for tag in sentence.tags)}))
    tokens, tags, origin = cut_sentences(both, encoder, labels, config.data.window)
    cut = int(np.searchsorted(origin, len(corpus.train)))
    own = [corpus.train[index] for index in origin[:cut]]
    attributes = {"document": _attribute([sentence.document for sentence in own])}
    if any(sentence.genre != UNKNOWN_GENRE for sentence in own):
        attributes["genre"] = _attribute([sentence.genre for sentence in own])
    attributes["label"] = Attribute(_most_frequent(tags[:cut], len(labels)), labels)
    return TaggedSamples(
        train=(torch.from_numpy(tokens[:cut]), torch.from_numpy(tags[:cut])),
        test=(torch.from_numpy(tokens[cut:]), torch.from_numpy(tags[cut:])),
        attributes=attributes,
        labels=labels,
        vocabulary=len(encoder),
        padding=encoder.padding,
        origin=corpus.origin,
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
