"""A language modelling's data as tensors: running text, cut into windows."""

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
        found: the documents; without a test, the end of every document is kept for it.
        window: T, tokens in one sample.
        vocabulary: words kept if no tokenizer is named.
        test_fraction: the share that is kept for the test.
        tokenizer: the pre-trained model whose tokenizer is taken; None: a vocabulary of our own.

    Returns:
        Token ids [N, T + 1] int64 (see `windows`); the attribute is ``source``, the document.

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
    """Documents' beginnings, to train on, and their ends, to test on, cut between words or lines."""
    train, test = [], []
    for document in documents:
        text, cut = document.text, int(len(document.text) * (1 - test_fraction))
        cut = (text.find("\n", cut) + 1 or len(text)) if lines else boundary(text, cut)
        train.append(Document(document.name, text[:cut]))
        test.append(text[cut:])
    return train, test
