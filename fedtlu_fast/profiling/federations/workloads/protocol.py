"""Holds what every workload has: its size, its model, its clients' data and its test, all from one seed."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

# Up to this many clients, their data are made once and held; beyond, they are made again at each use, so that
# a million clients fit in memory. The data are the same either way, because each client has its own seed.
HELD_CLIENTS = 20_000
TEST_SAMPLES = 512

Samples = tuple[torch.Tensor, torch.Tensor]
"""Inputs and targets of some samples."""


@dataclass(frozen=True)
class Settings:
    """Describes a client's work in a round: `steps` steps of `batch` samples, one pass over its samples."""

    clients: int
    cohort: int
    batch: int
    steps: int
    lr: float = 0.1

    @property
    def samples(self) -> int:
        """Returns the number of a client's samples."""
        return self.batch * self.steps


def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Computes the mean cross-entropy over samples, or over every position of every sample."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


class Workload(ABC):
    """Describes one federation; a copy sent to another process is rebuilt there.

    Attributes:
        name: its name on the command line.
        settings: its usual size, and what a client does in a round.
        clients: number of clients in the federation.
        cohort: number of clients in a round.
        seed: of the model and of all data.
        packages: modules that its model needs beside torch.
    """

    name: ClassVar[str]
    settings: ClassVar[Settings]
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, clients: int, cohort: int, seed: int) -> None:
        """Makes the model and what all clients' data have in common; the data are made when first used."""
        self.clients, self.cohort, self.seed = clients, cohort, seed
        self._held: list[Samples] | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed(0))
            self._model = self.make_model()
        self.make_truth_(self._generator(1))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # Imported here, because it imports the workloads, which import this file.
        from .choose import workload

        return workload, (self.name, self.clients, self.cohort, self.seed)

    @abstractmethod
    def make_model(self) -> nn.Module:
        """Makes a model from torch's global generator, which is seeded; it returns logits [..., classes]."""

    @abstractmethod
    def make_truth_(self, generator: torch.Generator) -> None:
        """Draws what the clients' data have in common."""

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Samples:
        """Draws the `settings.samples` samples of one client."""

    def draw_all(self, generators: Sequence[torch.Generator]) -> list[Samples]:
        """Draws the samples of several clients, the same as one by one."""
        return [self.draw(generator) for generator in generators]

    def model(self) -> nn.Module:
        """Returns a new model with the initial weights, which are the same for all simulators."""
        return copy.deepcopy(self._model)

    def sent(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Returns what is trained, and sent between server and clients, by name; nothing is copied.

        It is the state that `load_state_dict` reads, without frozen weights; then it needs ``strict=False``.
        """
        return {name: value for name, value in model.state_dict().items() if name in self._trained}

    @cached_property
    def _trained(self) -> frozenset[str]:
        return frozenset(name for name, own in self._model.named_parameters() if own.requires_grad)

    def hold(self) -> None:
        """Makes every client's data now, unless there are too many clients to hold."""
        if self._held is None and self.clients <= HELD_CLIENTS:
            self._held = self.draw_all([self._generator(2 + client) for client in range(self.clients)])

    def client(self, client: int) -> Samples:
        """Returns the inputs and targets of one client."""
        self.hold()
        return self._of(client) if self._held is None else self._held[client]

    def batches(self, client: int) -> list[Samples]:
        """Returns one client's batches of a round, in a fixed order."""
        inputs, targets = self.client(client)
        size = self.settings.batch
        return list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))

    def test_loss(self, model: nn.Module) -> float:
        """Returns the model's mean loss on samples of clients that take no part in training."""
        held_out = range(-(-TEST_SAMPLES // self.settings.samples))
        data = [self._of(2**31 - 2 + client) for client in held_out]
        inputs = torch.cat([x for x, _ in data])[:TEST_SAMPLES]
        targets = torch.cat([y for _, y in data])[:TEST_SAMPLES]
        model.eval()
        with torch.no_grad():
            found = [
                loss(model(x), y)
                for x, y in zip(torch.split(inputs, 64), torch.split(targets, 64), strict=True)
            ]
        return float(torch.stack(found).mean())

    def _of(self, client: int) -> Samples:
        return self.draw(self._generator(2 + client))

    def _seed(self, index: int) -> int:
        # torch's generator uses 32 bits of a seed; an odd factor spreads consecutive seeds over all of them.
        return ((self.seed + 1) * 40_503 + index) * 2_654_435_761 % 2**32

    def _generator(self, index: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed(index))
