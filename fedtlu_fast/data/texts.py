"""A text classification's data as tensors: texts from the settings' source, divided and encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.hub.texts import load_hub_texts
from fedtlu_fast.data.labelled import Attributes, drawn_test, take
from fedtlu_fast.data.population import Batch
from fedtlu_fast.data.reading import UNPACKED_LIMIT
from fedtlu_fast.data.sources.labelled_texts import load_text_files
from fedtlu_fast.data.sources.topics import load_topics
from fedtlu_fast.data.splits import Origin
from fedtlu_fast.data.text_set import TextSet, TextSplits
from fedtlu_fast.data.tokenizing import Vocabulary
from fedtlu_fast.data.words import words_of
from fedtlu_fast.errors import InputError
from fedtlu_fast.pretrained_tokenizer import load_tokenizer, padding_of, tokenize


@dataclass(frozen=True)
class TextSamples:
    """Samples and what is known of them.

    Attributes:
        train: tokens [N, T] and labels [N], both int64; T is the longest text's length, `window` at most.
        test: the same, [M, T] and [M].
        attributes: of the training samples: ``label`` first.
        labels: names of the labels.
        vocabulary: number of token ids.
        padding: the token id that fills up shorter texts.
        origin: of both.
    """

    train: Batch
    test: Batch
    attributes: Attributes
    labels: tuple[str, ...]
    vocabulary: int
    padding: int
    origin: Origin | None


def text_samples(config: RunConfig) -> TextSamples:
    """Reads, divides and encodes the texts of the settings' source. Of longer texts the beginning is kept.

    Raises:
        InputError: the source or the model's tokenizer cannot be read; or all texts have one label.
    """
    train, test = load_texts(config.data.source, config.data.unpacked_limit)
    origin = train.origin
    if test is None:
        rows = drawn_test(train.attributes, config.data.test_fraction)
        train, test = (
            TextSet([train.texts[row] for row in own], take(train.attributes, own)) for own in rows
        )
    label = train.attributes["label"]
    if len(label.names) < 2:
        raise InputError("data.source", config.data.source, f"two labels or more; all are {label.names}")
    ids, vocabulary, padding = _encoded(config, train.texts, test.texts)
    tokens = np.full((len(ids), max(map(len, ids))), padding, np.int64)
    for row, own in enumerate(ids):
        tokens[row, : len(own)] = own
    cut = len(train.texts)
    return TextSamples(
        train=(torch.from_numpy(tokens[:cut]), torch.from_numpy(label.codes)),
        test=(torch.from_numpy(tokens[cut:]), torch.from_numpy(test.attributes["label"].codes)),
        attributes=train.attributes,
        labels=label.names,
        vocabulary=vocabulary,
        padding=padding,
        origin=origin,
    )


def load_texts(source: str, limit: int = UNPACKED_LIMIT) -> TextSplits:
    """Reads labelled texts.

    Args:
        source: ``topics``, ``texts:PATH`` or ``hf:NAME[:CONFIG][@REVISION]``.
        limit: see `read_bytes`.

    Raises:
        InputError: an unknown source, or one that cannot be read.
    """
    kind, _, rest = source.partition(":")
    if kind == "texts" and rest:
        return load_text_files(rest, limit)
    if kind == "hf" and rest:
        return load_hub_texts(rest)
    if source == "topics":
        return load_topics(), None
    expected = "topics, texts:PATH or hf:NAME, for task=text_classification"
    raise InputError("data.source", source, expected)


def _encoded(
    config: RunConfig, train: Sequence[str], test: Sequence[str]
) -> tuple[list[list[int]], int, int]:
    """Token ids of the one and the other, the number of ids there are, and the one that pads."""
    name, window = config.model.pretrained, config.data.window
    if name is not None:
        tokenizer = load_tokenizer(name)
        padding = padding_of(tokenizer, name)
        found = tokenize(tokenizer, name, [*train, *test], truncation=True, max_length=window)
        return found["input_ids"], len(tokenizer), padding
    words = [words_of(text) for text in (*train, *test)]
    known = (word for own in words[: len(train)] for word in own)
    vocabulary = Vocabulary(known, config.data.vocabulary, padded=True)
    return [vocabulary.ids(own[:window]) for own in words], len(vocabulary), 0
