"""A synthetic classification: a rule makes a client's samples when the client is drawn; none are kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import sqrt
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic_core import to_json

from fedtlu_fast.data.federated import FederatedData
from fedtlu_fast.data.population import Batch, Samples
from fedtlu_fast.data.sources.source import VectorSource
from fedtlu_fast.data.splits import announce
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part, values
from fedtlu_fast.randomness import Draws, generator

TEST_CLIENTS = 64
"""Number of additional clients whose samples are the global test; they take part in no round."""
TEST_SAMPLES = 16
"""Number of samples of each of these clients."""


@part
class Synthetic(VectorSource):
    """Clients made by a rule, after FedProx's Synthetic(alpha, beta), arXiv 1812.06127.

    `SyntheticPopulation` describes the rule.

    Attributes:
        features: number of numbers in one sample.
        model_variance: alpha, the variance of the clients' own models.
        input_variance: beta, the variance of the means of the clients' inputs.
        fewest: smallest number of samples of a client; sizes are drawn uniformly from `fewest` to `most`.
        most: largest number of samples of a client.
        classes: number of labels.
    """

    features: Annotated[int, Field(ge=1)] = 60
    model_variance: Annotated[float, Field(ge=0)] = 1.0
    input_variance: Annotated[float, Field(ge=0)] = 1.0
    fewest: Annotated[int, Field(ge=2)] = 20
    most: Annotated[int, Field(ge=2)] = 40
    classes: Annotated[int, Field(ge=2)] = 10

    def __post_init__(self) -> None:
        """Checks the order of the two bounds."""
        if self.most < self.fewest:
            raise InputError("most", self.most, f"at least {self.fewest}, as in fewest")

    def vectors(self, clients: int, seed: int, local_fraction: float) -> FederatedData:
        """See `VectorSource`. Clients are made when they are drawn."""
        tests = [f"{TEST_CLIENTS} clients that take part in no round"]
        return FederatedData(
            population=SyntheticPopulation(self, clients, seed, local_fraction),
            inputs=self.features,
            outputs=self.classes,
            origin=announce("samples", TEST_CLIENTS * TEST_SAMPLES, tests),
        )


@dataclass(frozen=True)
class SyntheticPopulation:
    """Clients with models and inputs of their own, after Synthetic(alpha, beta) of FedProx.

    Client k labels its inputs by ``y = argmax(W_k x + b_k)``. Its model is the sum of a common model, with
    entries from N(0, 1), and its own deviation, with entries from N(0, alpha). Its inputs are from N(v_k, S),
    where the entries of v_k are from N(0, beta) and S is diagonal with ``S_jj = j**-1.2``. So alpha says how
    much the clients' models differ, and beta how much their inputs differ; if both are 0, all clients have
    the same distribution. Everything is a pure function of (seed, client).

    Ours, where it departs from the paper (arXiv 1812.06127, section 5.1): in the paper the models have
    nothing in common for any alpha, because alpha only shifts all entries of W_k and b_k by one number, which
    changes no label. The paper draws sizes from a power law; here they are uniform between two bounds.

    Attributes:
        rule: the numbers of the rule.
        clients: number of clients.
        seed: the run's seed.
        local_fraction: share of a client's samples that is kept for its own test.
        device: the device of the tensors.
    """

    rule: Synthetic
    clients: int
    seed: int
    local_fraction: float
    device: str = "cpu"
    _draws: Draws = field(default_factory=Draws, repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """See `Population`. It is a digest of the rule, not of samples."""
        own = values(self.rule)
        rule = {"local_fraction": self.local_fraction, "classes": own.pop("classes"), "synthetic": own}
        text = f"{to_json(rule).decode()}/{self.clients}/{self.seed}"
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def test(self) -> Batch:
        """The global test: samples of `TEST_CLIENTS` additional clients, which no round draws."""
        made = [self._make("test client", k, TEST_SAMPLES) for k in range(TEST_CLIENTS)]
        return self._tensors(np.concatenate([x for x, _ in made]), np.concatenate([y for _, y in made]))

    def train(self, client: int) -> Samples:
        """See `Population`."""
        return self._split(client)[0]

    def held_out(self, client: int) -> Samples:
        """See `Population`."""
        return self._split(client)[1]

    def sizes(self) -> NDArray[np.int64]:
        """See `KnowsSizes`. It makes one draw for every client, which takes seconds for a million clients."""
        sizes = np.empty(self.clients, np.int64)
        for client in range(self.clients):
            total = self._size(self._draws.generator(self.seed, "client", client=client))
            sizes[client] = total - self._held(total)
        return sizes

    def to(self, device: str) -> SyntheticPopulation:
        """See `Population`."""
        return replace(self, device=device, _draws=Draws())

    def _split(self, client: int) -> tuple[Samples, Samples]:
        pool = self._tensors(*self._make("client", client))
        size = len(pool[0])
        held = self._held(size)
        rows = np.arange(size)
        return Samples(pool, rows[held:]), Samples(pool, rows[:held])

    def _make(
        self, purpose: str, client: int, size: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rule, draw = self.rule, self._draws.generator(self.seed, purpose, client=client)
        n = size or self._size(draw)
        own = draw.standard_normal((rule.features + 1, self.rule.classes), dtype=np.float32)
        model = self._common + np.float32(sqrt(rule.model_variance)) * own
        mean = draw.standard_normal(rule.features, dtype=np.float32) * np.float32(sqrt(rule.input_variance))
        x = draw.standard_normal((n, rule.features), dtype=np.float32) * self._spread + mean
        return x, (x @ model[:-1] + model[-1]).argmax(axis=1)

    def _size(self, draw: np.random.Generator) -> int:
        """Draws a client's number of samples, with its own test; it has to be the generator's first draw."""
        return int(draw.integers(self.rule.fewest, self.rule.most, endpoint=True))

    def _held(self, total: int) -> int:
        """Returns the number of samples, of `total`, that are kept for the client's own test."""
        return min(round(total * self.local_fraction), total - 1)

    @cached_property
    def _common(self) -> NDArray[np.float32]:
        """[features + 1, classes] float32, the weights of the common model; the last row is the biases."""
        shape = (self.rule.features + 1, self.rule.classes)
        return generator(self.seed, "common model").standard_normal(shape, dtype=np.float32)

    @cached_property
    def _spread(self) -> NDArray[np.float32]:
        """[features] float32, the inputs' standard deviations."""
        return (np.arange(1, self.rule.features + 1) ** -0.6).astype(np.float32)

    def _tensors(self, features: NDArray[np.float32], labels: NDArray[np.int64]) -> Batch:
        return torch.from_numpy(features).to(self.device), torch.from_numpy(labels).to(self.device)
