"""Defines the workloads on which simulators are compared: model, clients' data and test, all from one seed.

It needs torch; only "gpt" needs transformers.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

# Up to this many clients, their data are made once and held; beyond, they are made again at each use, so that
# a million clients fit in memory. The data are the same either way, because each client has its own seed.
HELD_CLIENTS = 20_000
TEST_SAMPLES = 512
FEATURES, CLASSES = 64, 10
VOCABULARY, CONTEXT, SUCCESSORS = 2000, 64, 4


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


DEFAULTS = {
    "mlp": Settings(clients=10_000, cohort=1000, batch=10, steps=2),
    "gpt": Settings(clients=100, cohort=10, batch=16, steps=5),
}


class Logits(nn.Module):
    """Wraps a Hugging Face model so that it returns its logits, [batch, position, token]."""

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the logits of these tokens."""
        logits: torch.Tensor = self.lm(tokens).logits
        return logits


def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Computes the mean cross-entropy over samples, or over every position of every sample."""
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


class Workload:
    """Describes one federation, made by `workload()`; a copy sent to another process is rebuilt there."""

    def __init__(self, name: str, clients: int, cohort: int, seed: int) -> None:
        self.name, self.clients, self.cohort, self.seed = name, clients, cohort, seed
        self.settings = DEFAULTS[name]
        self._held: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed(0))
            self._model = _mlp() if name == "mlp" else _gpt()
        generator = self._generator(1)
        if name == "mlp":
            self._truth = torch.randn(FEATURES, CLASSES, generator=generator)
        else:
            self._successor = torch.randint(VOCABULARY, (VOCABULARY, SUCCESSORS), generator=generator)

    def __reduce__(self) -> tuple[Any, ...]:
        return workload, (self.name, self.clients, self.cohort, self.seed)

    def model(self) -> nn.Module:
        """Returns a new model with the initial weights, which are the same for all simulators."""
        return copy.deepcopy(self._model)

    def hold(self) -> None:
        """Makes every client's data now, unless there are too many clients to hold."""
        if self._held is None and self.clients <= HELD_CLIENTS:
            self._held = [self._draw(2 + client) for client in range(self.clients)]

    def client(self, client: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the inputs and targets of one client."""
        self.hold()
        return self._draw(2 + client) if self._held is None else self._held[client]

    def batches(self, client: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Returns one client's batches of a round, in a fixed order."""
        inputs, targets = self.client(client)
        size = self.settings.batch
        return list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))

    def test_loss(self, model: nn.Module) -> float:
        """Returns the model's mean loss on samples of clients that take no part in training."""
        per_client = self.settings.samples
        held_out = range(-(-TEST_SAMPLES // per_client))
        data = [self._draw(2**31 + client) for client in held_out]
        inputs = torch.cat([x for x, _ in data])[:TEST_SAMPLES]
        targets = torch.cat([y for _, y in data])[:TEST_SAMPLES]
        model.eval()
        with torch.no_grad():
            found = [
                loss(model(x), y)
                for x, y in zip(torch.split(inputs, 64), torch.split(targets, 64), strict=True)
            ]
        return float(torch.stack(found).mean())

    def _seed(self, index: int) -> int:
        # torch's generator uses 32 bits of a seed; an odd factor spreads consecutive seeds over all of them.
        return ((self.seed + 1) * 40_503 + index) * 2_654_435_761 % 2**32

    def _generator(self, index: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed(index))

    def _draw(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = self._generator(index)
        rows = self.settings.samples
        if self.name == "mlp":
            inputs = torch.randn(rows, FEATURES, generator=generator)
            noise = torch.randn(rows, CLASSES, generator=generator)
            return inputs, (inputs @ self._truth + noise).argmax(1)
        # A Markov chain: each client prefers other successors of a token, and one token in ten is drawn
        # from a common distribution that favours small numbers.
        preference = torch.rand(SUCCESSORS, generator=generator) ** 3 + 0.01
        choice = torch.multinomial(preference, rows * (CONTEXT + 1), replacement=True, generator=generator)
        choice = choice.view(CONTEXT + 1, rows)
        uniform = torch.rand(CONTEXT + 1, rows, generator=generator)
        jump = torch.rand(CONTEXT + 1, rows, generator=generator) < 0.1
        anywhere = (VOCABULARY**uniform - 1).long()
        tokens = [anywhere[0]]
        for at in range(1, CONTEXT + 1):
            tokens.append(torch.where(jump[at], anywhere[at], self._successor[tokens[-1], choice[at]]))
        text = torch.stack(tokens, 1)
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()


@functools.lru_cache(maxsize=1)
def workload(name: str, clients: int | None = None, cohort: int | None = None, seed: int = 0) -> Workload:
    """Returns the workload of this name; one per process, so that workers share its data."""
    default = DEFAULTS[name]
    clients, cohort = clients or default.clients, cohort or default.cohort
    if cohort > clients:
        raise ValueError(f"a cohort of {cohort} cannot be drawn from {clients} clients")
    return Workload(name, clients, cohort, seed)


def import_model(name: str) -> None:
    """Imports the model's packages, so that their time counts as import and not as building."""
    if name == "gpt":
        from transformers.models.gpt2 import modeling_gpt2  # noqa: F401


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.ReLU(), nn.Linear(FEATURES, CLASSES))


def _gpt() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=128,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",
        use_cache=False,
        bos_token_id=0,  # GPT-2's own are beyond this vocabulary
        eos_token_id=0,
    )
    return Logits(GPT2LMHeadModel(config))
