"""Clients by rule: FedProx's synthetic classification, made when a client is drawn and then forgotten."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from fedtlu_fast.config import DataConfig
from fedtlu_fast.data.population import Batch, Samples
from fedtlu_fast.randomness import Draws

TEST_CLIENTS = 64
"""Clients that the global test is made of; they take part in no round."""
TEST_SAMPLES = 16
"""Samples of each."""


@dataclass(frozen=True)
class SyntheticPopulation:
    """Synthetic(alpha, beta) of FedProx (arXiv 1812.06127, section 5.1), for any number of clients.

    Client k has a model of its own, ``y = argmax(W x + b)`` with entries of W and b from N(u_k, 1) and u_k
    from N(0, alpha), and inputs x from N(v_k, S), entries of v_k from N(B_k, 1), B_k from N(0, beta), S
    diagonal with ``S_jj = j**-1.2``. alpha tells how far the clients' models differ, beta how far their
    inputs do. How many samples a client holds is drawn uniformly between two bounds (the paper draws it
    from a power law). Everything is a pure function of (seed, client).

    Attributes:
        rule: sizes, spreads, and the share kept for the client's own test.
        clients: how many.
        seed: of the run.
        device: where tensors go.
    """

    rule: DataConfig
    clients: int
    seed: int
    device: str = "cpu"
    _draws: Draws = field(default_factory=Draws, repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """See `Population`: the rule itself."""
        rule = self.rule.model_dump_json(include={"synthetic", "classes", "local_fraction"})
        text = f"{rule}/{self.clients}/{self.seed}"
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def test(self) -> Batch:
        """Samples of clients that no round draws."""
        made = [self._make("test client", k, TEST_SAMPLES) for k in range(TEST_CLIENTS)]
        return self._tensors(np.concatenate([x for x, _ in made]), np.concatenate([y for _, y in made]))

    def train(self, client: int) -> Samples:
        """See `Population`."""
        return self._split(client)[0]

    def held_out(self, client: int) -> Samples:
        """See `Population`."""
        return self._split(client)[1]

    def to(self, device: str) -> SyntheticPopulation:
        """See `Population`."""
        return SyntheticPopulation(self.rule, self.clients, self.seed, device)

    def _split(self, client: int) -> tuple[Samples, Samples]:
        pool = self._tensors(*self._make("client", client))
        size = len(pool[0])
        held = min(round(size * self.rule.local_fraction), size - 1)
        rows = np.arange(size)
        return Samples(pool, rows[held:]), Samples(pool, rows[:held])

    def _make(
        self, purpose: str, client: int, size: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rule, draw = self.rule.synthetic, self._draws.generator(self.seed, purpose, client=client)
        n = size or int(draw.integers(rule.fewest, rule.most, endpoint=True))
        model_mean = np.float32(draw.normal(0, np.sqrt(rule.model_variance)))
        input_mean = draw.normal(draw.normal(0, np.sqrt(rule.input_variance)), 1, rule.features)
        shape = (rule.features, self.rule.classes)
        weight = draw.standard_normal(shape, dtype=np.float32) + model_mean
        bias = draw.standard_normal(self.rule.classes, dtype=np.float32) + model_mean
        spread = np.arange(1, rule.features + 1) ** -0.6
        x = draw.standard_normal((n, rule.features), dtype=np.float32)
        x = (x * spread + input_mean).astype(np.float32)
        return x, (x @ weight + bias).argmax(axis=1)

    def _tensors(self, features: NDArray[np.float32], labels: NDArray[np.int64]) -> Batch:
        return torch.from_numpy(features).to(self.device), torch.from_numpy(labels).to(self.device)
