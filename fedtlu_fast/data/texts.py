"""Turns labelled texts into the tensors of a text classification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fedtlu_fast.data.federated import Encoded
from fedtlu_fast.data.labelled import check_labels, drawn_test, take
from fedtlu_fast.data.sources.source import Read
from fedtlu_fast.data.text_set import TextSet
from fedtlu_fast.data.tokenizing import Vocabulary
from fedtlu_fast.data.words import words_of
from fedtlu_fast.models.pretrained_tokenizer import load_tokenizer, padding_of, tokenize


def text_samples(
    found: Read[TextSet],
    source: str,
    *,
    window: int,
    vocabulary: int,
    test_fraction: float,
    tokenizer: str | None = None,
) -> Encoded:
    """Divides texts into training and test samples and encodes them; a long text loses its end.

    Args:
        found: the texts. If they have no test part, a share of every kind is drawn for it.
        source: the source as settings write it, for messages.
        window: largest number of tokens in one sample.
        vocabulary: number of words in the vocabulary, if no tokenizer is named.
        test_fraction: share of the texts that is drawn for the test.
        tokenizer: name of the pre-trained model whose tokenizer encodes the texts; None: a vocabulary of
            words.

    Returns:
        Tokens [N, T] and labels [N], both int64; T is the length of the longest text, at most `window`. The
        only attributes are those of the texts; the first is ``label``.

    Raises:
        InputError: the tokenizer cannot be read; or all texts have one label.
    """
    train, test = found.train, found.test
    if test is None:
        rows = drawn_test(train.attributes, test_fraction)
        train, test = (
            TextSet([train.texts[row] for row in own], take(train.attributes, own)) for own in rows
        )
    label = check_labels(train.attributes, source)
    ids, known, padding = _encoded(train.texts, test.texts, window, vocabulary, tokenizer)
    tokens = np.full((len(ids), max(map(len, ids))), padding, np.int64)
    for row, own in enumerate(ids):
        tokens[row, : len(own)] = own
    cut = len(train.texts)
    return Encoded(
        train=(torch.from_numpy(tokens[:cut]), torch.from_numpy(label.codes)),
        test=(torch.from_numpy(tokens[cut:]), torch.from_numpy(test.attributes["label"].codes)),
        origin=found.origin,
        inputs=tokens.shape[1],
        outputs=len(label.names),
        attributes=train.attributes,
        labels=label.names,
        vocabulary=known,
        padding=padding,
    )


def _encoded(
    train: Sequence[str], test: Sequence[str], window: int, size: int, name: str | None
) -> tuple[list[list[int]], int, int]:
    """Returns the token ids of the texts (first `train`, then `test`), the number of ids, and the padding."""
    if name is not None:
        tokenizer = load_tokenizer(name)
        padding = padding_of(tokenizer, name)
        found = tokenize(tokenizer, name, [*train, *test], truncation=True, max_length=window)
        return found["input_ids"], len(tokenizer), padding
    words = [words_of(text) for text in (*train, *test)]
    known = (word for own in words[: len(train)] for word in own)
    vocabulary = Vocabulary(known, size, padded=True)
    return [vocabulary.ids(own[:window]) for own in words], len(vocabulary), 0
