"""The data of a whole federation: every client's samples, its own test, and the global test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.partition import Indices, make_partitioner
from fedtlu_fast.data.sources import Document, load_documents
from fedtlu_fast.data.tokenizing import PretrainedTokenizer, TokenizerLike, WordTokenizer, windows
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import generator


@dataclass(frozen=True)
class Client:
    """What one client holds: rows of the federation's samples to train on and to test on."""

    train: Indices
    test: Indices


@dataclass(frozen=True)
class FederatedData:
    """All samples, and who holds which.

    Attributes:
        samples: [N, window + 1] int64 token ids; the training part of every source.
        test: [M, window + 1], the global test: the end of every source.
        clients: each client's rows of `samples`, none shared.
        sources: [N], the source each sample is from.
        source_names: their names.
        vocabulary: number of token ids.
        fingerprint: SHA-256 over samples, test and partition; a resumed run must find the same.
    """

    samples: Tensor
    test: Tensor
    clients: tuple[Client, ...]
    sources: Indices
    source_names: tuple[str, ...]
    vocabulary: int
    fingerprint: str


def load_federation(config: RunConfig) -> FederatedData:
    """Reads, tokenizes, cuts and deals the data that the settings describe.

    Raises:
        InputError: the source cannot be read, or holds too little text for so many clients.
    """
    documents = load_documents(config.data.source)
    halves = [_split(document, config.data.test_fraction) for document in documents]
    tokenizer: TokenizerLike = (
        PretrainedTokenizer(config.model.pretrained)
        if config.model.pretrained
        else WordTokenizer((train for train, _ in halves), config.data.vocabulary)
    )
    length = config.data.window
    train = [windows(tokenizer.encode(text), length) for text, _ in halves]
    test = torch.cat([windows(tokenizer.encode(text), length) for _, text in halves])
    samples = torch.cat(train)
    sources = np.repeat(np.arange(len(train)), [len(part) for part in train])
    _check_enough(config, len(samples), len(test))
    parts = make_partitioner(config.partition, config.clients).partition(
        sources, generator(config.seed, "partition")
    )
    clients = tuple(_client(config, index, part) for index, part in enumerate(parts))
    return FederatedData(
        samples=samples,
        test=test,
        clients=clients,
        sources=sources,
        source_names=tuple(document.name for document in documents),
        vocabulary=len(tokenizer),
        fingerprint=_fingerprint(samples, test, clients),
    )


def _split(document: Document, test_fraction: float) -> tuple[str, str]:
    """A document's beginning, to train on, and its end, to test on, cut at white space."""
    cut = int(len(document.text) * (1 - test_fraction))
    while cut < len(document.text) and not document.text[cut].isspace():
        cut += 1
    return document.text[:cut], document.text[cut:]


def _check_enough(config: RunConfig, samples: int, tests: int) -> None:
    needed = config.clients * config.partition.min_samples
    if samples < needed or not tests:
        raise InputError(
            "data.source",
            config.data.source,
            f"text for {needed} samples ({config.clients} clients of {config.partition.min_samples} or more) "
            f"and a test; it gives {samples} to train on and {tests} to test, "
            f"of {config.data.window} tokens each",
            "Use fewer clients, a shorter window or more text.",
        )


def _client(config: RunConfig, index: int, rows: Indices) -> Client:
    held = max(1, round(len(rows) * config.data.local_fraction))
    if len(rows) - held < 1:
        raise InputError(
            f"clients[{index}]", f"{len(rows)} samples", "at least one to train on and one to test on"
        )
    shuffled = generator(config.seed, "local split", client=index).permutation(rows)
    return Client(train=np.sort(shuffled[held:]), test=np.sort(shuffled[:held]))


def _fingerprint(samples: Tensor, test: Tensor, clients: Sequence[Client]) -> str:
    digest = hashlib.sha256()
    for array in (samples.numpy(), test.numpy(), *(rows for c in clients for rows in (c.train, c.test))):
        digest.update(np.int64(len(array)).tobytes())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
