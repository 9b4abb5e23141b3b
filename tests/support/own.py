"""A user's own models, ragged Datasets, loss and metric, and a federation made of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from fedtlu_fast import Federation, Local
from fedtlu_fast.build.run import founding
from fedtlu_fast.data.datasets import Datasets
from fedtlu_fast.simulation.round import RoundRecord, run_round
from fedtlu_fast.simulation.server import Server
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.tasks.task import Task

WORDS, TAGS = 12, 3


class Sentences(Dataset[tuple[Tensor, Tensor]]):
    """Sentences of 2 to 7 words, with each word modulo TAGS as its tag; counts how often they are read."""

    def __init__(self, seed: int, count: int = 9) -> None:
        draws = torch.Generator().manual_seed(seed)
        lengths = torch.randint(2, 8, (count,), generator=draws).tolist()
        self.sentences = [torch.randint(1, WORDS, (length,), generator=draws) for length in lengths]
        self.read = 0

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.read += 1
        return self.sentences[index], self.sentences[index] % TAGS


class LstmTagger(nn.Module):
    """A tagger with PyTorch's LSTM, which torch.func cannot vectorise."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 8, padding_idx=0)
        self.lstm = nn.LSTM(8, 8, num_layers=3, batch_first=True)
        self.head = nn.Linear(8, TAGS)

    def forward(self, words: Tensor) -> Tensor:
        found: Tensor = self.head(self.lstm(self.embed(words))[0])
        return found


class Gates(nn.Module):
    """One layer of an LSTM, made of plain operations."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.states = nn.Linear(8, 32), nn.Linear(8, 32)

    def forward(self, x: Tensor) -> Tensor:
        hidden = cell = x[:, 0] * 0
        outputs = []
        for step in x.unbind(dim=1):
            enter, forget, new, leave = (self.inputs(step) + self.states(hidden)).chunk(4, dim=-1)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            hidden = leave.sigmoid() * cell.tanh()
            outputs.append(hidden)
        return torch.stack(outputs, dim=1)


class GatesTagger(nn.Module):
    """The same tagger made of plain operations, which torch.func can vectorise."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 8)
        self.layers = nn.ModuleList(Gates() for _ in range(3))
        self.head = nn.Linear(8, TAGS)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embed(words)
        for layer in self.layers:
            x = layer(x)
        found: Tensor = self.head(x)
        return found


def tag_loss(model: nn.Module, batch: Any) -> Tensor:
    """Returns [B], each sentence's mean loss over its words."""
    words, tags = batch
    nats = F.cross_entropy(model(words).flatten(0, 1), tags.flatten(), reduction="none").view(tags.shape)
    return nats.sum(dim=1) / word_counts(batch)


def mean_tag_loss(model: nn.Module, batch: Any) -> Tensor:
    """Returns the mean loss over all words (scalar)."""
    words, tags = batch
    return F.cross_entropy(model(words).flatten(0, 1), tags.flatten())


def word_counts(batch: Any) -> Tensor:
    return (batch[1] != -100).sum(dim=1)


def tag_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns [B], the share of each sentence's words with the right tag."""
    return (outputs.argmax(dim=-1) == targets).sum(dim=1) / (targets != -100).sum(dim=1)


def sentences(clients: int = 6) -> Datasets:
    """Makes six clients with sentences of their own."""
    return Datasets(
        train=[Sentences(client) for client in range(clients)],
        test=Sentences(99, 20),
        held_out=[Sentences(50 + client, 4) for client in range(clients)],
    )


@dataclass
class Federated:
    """A federation of a user's own task and data, whose rounds are run one by one."""

    server: Server
    state: ServerState

    def rounds(self, count: int) -> list[RoundRecord]:
        records = []
        for _ in range(count):
            self.state, record = run_round(self.server, self.state)
            records.append(record)
        return records


@contextmanager
def federated(
    task: Task, data: Datasets, lr: float = 0.5, batch_size: int = 4, **execution: Any
) -> Iterator[Federated]:
    """A federation of four clients a round before its first round; `execution` are settings of that name."""
    local = Local(lr=lr, steps=3, batch_size=batch_size)
    settings = {"execution": {"clients_per_batch": 1, "engine": "torch", **execution}}
    config = Federation(task, data, cohort=4, local=local, keep=2, settings=settings).config(2)
    with founding(config) as (_, founded):
        yield Federated(founded.server, founded.state)
