"""Turns running text into the tensors of a language modelling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.documents import Document, Documents
from fedtlu_fast.data.federated import Encoded
from fedtlu_fast.data.sources.source import Read
from fedtlu_fast.data.tokenizing import (
    LineTokenizer,
    PretrainedTokenizer,
    TokenizerLike,
    WordTokenizer,
    windows,
)
from fedtlu_fast.data.words import boundary


def window_samples(
    found: Read[Documents],
    *,
    window: int,
    vocabulary: int,
    test_fraction: float,
    tokenizer: str | None = None,
) -> Encoded:
    """Tokenizes running text and cuts it into windows.

    Args:
        found: the documents. If they have no test part, the end of every document is kept for it.
        window: T, the number of inputs in one sample.
        vocabulary: number of words in the vocabulary, if no tokenizer is named.
        test_fraction: share of each document that is kept for the test.
        tokenizer: name of the pre-trained model whose tokenizer encodes the text; None: a vocabulary of
            words.

    Returns:
        Token ids [N, T + 1] int64 (see `windows`). The only attribute is ``source``, the document's name.

    Raises:
        InputError: the tokenizer cannot be read.
    """
    documents = found.train.items
    if found.test is None:
        documents, tests = _split(documents, test_fraction, lines=found.train.prepared)
    else:
        tests = [document.text for document in found.test.items]
    encoder: TokenizerLike
    if tokenizer:
        encoder = PretrainedTokenizer(tokenizer)
    else:
        words = LineTokenizer if found.train.prepared else WordTokenizer
        encoder = words((document.text for document in documents), vocabulary)
    train = [windows(encoder.encode(document.text), window) for document in documents]
    test = torch.cat([windows(encoder.encode(text), window) for text in tests])
    sources = np.repeat(np.arange(len(train)), [len(part) for part in train])
    return Encoded(
        train=(torch.cat(train),),
        test=(test,),
        origin=found.origin,
        inputs=window,
        outputs=len(encoder),
        attributes={"source": Attribute(sources, tuple(document.name for document in documents))},
    )


def _split(
    documents: Sequence[Document], test_fraction: float, *, lines: bool = False
) -> tuple[list[Document], list[str]]:
    """Cuts documents between words or lines into beginnings to train on and ends to test on."""
    train, test = [], []
    for document in documents:
        text, cut = document.text, int(len(document.text) * (1 - test_fraction))
        cut = (text.find("\n", cut) + 1 or len(text)) if lines else boundary(text, cut)
        train.append(Document(document.name, text[:cut]))
        test.append(text[cut:])
    return train, test
