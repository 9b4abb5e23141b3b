"""Federates an LSTM tagger on 50 Datasets of sentences of different lengths, with a loss, metric and rule."""

import torch
from torch import nn
from torch.nn import functional as F

import fedtlu_fast as ft


class Tagger(nn.Module):
    """Word ids [B, T] to the logits of three tags [B, T, 3]."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 16, padding_idx=0), nn.Linear(16, 3)
        self.lstm = nn.LSTM(16, 16, num_layers=3, batch_first=True)

    def forward(self, words):
        return self.head(self.lstm(self.embed(words))[0])


class Sentences(torch.utils.data.Dataset):
    """Sentences of 3 to 11 words, with a tag for every word."""

    def __init__(self, seed, count=20):
        draws = torch.Generator().manual_seed(seed)
        lengths = torch.randint(3, 12, (count,), generator=draws)
        self.words = [torch.randint(1, 30, (int(n),), generator=draws) for n in lengths]

    def __len__(self):
        return len(self.words)

    def __getitem__(self, index):
        return self.words[index], self.words[index] % 3


def focal_loss(model, batch):
    """[B]: words that are tagged well already count less (focal loss, arXiv 1708.02002)."""
    words, tags = batch
    nats = F.cross_entropy(model(words).transpose(1, 2), tags, reduction="none")
    return ((1 - (-nats).exp()) * nats).sum(1) / (tags != -100).sum(1)


def accuracy(outputs, targets):
    """[B]: the share of each sentence's words with the right tag."""
    return (outputs.argmax(-1) == targets).sum(1) / (targets != -100).sum(1)


def middle_half(updates, weights):
    """[P]: the mean of the middle half of the clients, number by number."""
    quarter = len(updates) // 4
    return updates.sort(dim=0).values[quarter : len(updates) - quarter].mean(dim=0)


def federation(**more):
    """The federation; `more` are arguments of `ft.Federation`."""
    torch.manual_seed(0)
    task = ft.SupervisedTask(Tagger(), focal_loss, {"accuracy": ft.Metric(accuracy, percent=True)})
    data = ft.Datasets(train=[Sentences(client) for client in range(50)], test=Sentences(99, 200))
    local = ft.Local("adamw", lr=0.01, steps=20, batch_size=10)
    return ft.Federation(task, data, cohort=8, local=local, aggregation=middle_half, **more)


if __name__ == "__main__":
    result = federation(executor="processes").run(rounds=8)
    print(*(f"round {row['round']}: {row['test_accuracy']:.1%}" for row in result.metrics), sep="\n")
    print(result, result.model, sep="\n")
