"""Federates your own tagger with your own loss, metric, selector and rule; a second call resumes the run.

Usage: federate.py EXECUTOR DIRECTORY
"""

import sys
from pathlib import Path

import torch
from tagger import Sentences, Tagger

import fedtlu_fast as ft


def focal_loss(outputs, targets):
    """Returns the loss of each sentence, [B]; words that are tagged well count less (arXiv 1708.02002)."""
    nats = torch.nn.functional.cross_entropy(outputs.transpose(1, 2), targets, reduction="none")
    return ((1 - (-nats).exp()) * nats).sum(1) / (targets != -100).sum(1)


def accuracy(outputs, targets):
    """Returns the share of each sentence's words with the right tag, [B]."""
    return (outputs.argmax(-1) == targets).sum(1) / (targets != -100).sum(1)


def middle_half(updates, weights):
    """Returns the mean of the middle half of the clients' changes [K, P], for each parameter, [P]."""
    return updates.sort(dim=0).values[len(updates) // 4 : -(len(updates) // 4)].mean(dim=0)


@ft.part
class Rested(ft.Ranking):
    """Ranks like FedTLU, but reduces the score of a block that was applied in the round before."""

    handicap: float = 0.5
    needs = ("excess",)

    def utility(self, evidence):
        last = 0 if evidence.last_choice is None else evidence.last_choice
        return evidence.metrics["excess"] * (1 - self.handicap * last)


def federation(**more):
    """Makes the federation; `more` are arguments of `ft.Federation`."""
    torch.manual_seed(0)
    task = ft.SupervisedTask(Tagger(), focal_loss, {"accuracy": ft.Metric(accuracy, percent=True)})
    data = ft.Datasets(train=[Sentences(client) for client in range(50)], test=Sentences(99, 200))
    own = {"aggregation": middle_half, "selection": Rested(0.3), "keep": 1}
    local = ft.Local("adamw", lr=0.01, steps=20, batch_size=10)
    return ft.Federation(task, data, cohort=8, local=local, **own, **more)


if __name__ == "__main__":
    built, out = federation(executor=sys.argv[1]), Path(sys.argv[2])
    print(built.resume(out) if out.exists() else built.run(8, out))
