"""Noisy and malicious clients: what is wrong with their data, or with what they send.

Which clients these are depends on the seed alone: the first threat takes the first of one shuffled order of
the clients, the next one those that follow. So different threats of the same share strike the same clients.

The papers name noisy and malicious clients and define neither; kinds and strengths are those of the attack
literature where it is cited, and else ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import NormalDist
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.config import RunConfig, ThreatConfig
from fedtlu_fast.data.population import Batch, Indices, Pool, Population, Samples, sizes_of
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.randomness import generator
from fedtlu_fast.stats import layer_stats

IGNORED = -100
"""A label that is no label."""
DATA_THREATS = ("label_noise", "token_noise", "label_flip")
UPDATE_THREATS = ("noise", "sign_flip", "scaling", "random", "shift")
COLLUSION = "a_little_is_enough"


class Roles:
    """Which clients are under which threat."""

    def __init__(self, threats: Iterable[ThreatConfig], clients: int, seed: int) -> None:
        """Draws them: of each threat, its share of the clients, rounded.

        Args:
            threats: in the order in which they take clients.
            clients: in the federation.
            seed: of the run.
        """
        self.threats = tuple(threats)
        self._struck: list[Indices] = []
        if self.threats:
            order = generator(seed, "threats").permutation(clients)
            ends = np.cumsum([threat.share for threat in self.threats])
            cuts = np.rint(ends * clients).astype(np.int64)
            self._struck = [np.sort(part) for part in np.split(order, cuts)[: len(cuts)]]

    def __bool__(self) -> bool:
        return bool(self.threats)

    def of(self, client: int) -> ThreatConfig | None:
        """The client's threat, if it has one."""
        for threat, struck in zip(self.threats, self._struck, strict=True):
            place = int(np.searchsorted(struck, client))
            if place < len(struck) and struck[place] == client:
                return threat
        return None

    def colludes(self, client: int) -> bool:
        """Whether this client sends what it has made up with others."""
        threat = self.of(client)
        return threat is not None and threat.kind == COLLUSION

    def adversaries(self, clients: Iterable[int]) -> list[int]:
        """Those of these clients that are under a threat."""
        return [client for client in clients if self.of(client) is not None] if self.threats else []


# --- wrong data ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpoiledPopulation:
    """A population of which some clients train on wrong data; what they test on stays right.

    Attributes:
        inner: the clients with their right data.
        roles: who has wrong ones.
        seed: of the run; a client's wrong data are the same in every round.
        tokens: number of token ids; 0 where samples are not tokens.
        labels: number of labels; 0 where samples have none beside their tokens.
    """

    inner: Population
    roles: Roles
    seed: int
    tokens: int
    labels: int

    @property
    def clients(self) -> int:
        """See `Population`."""
        return self.inner.clients

    @property
    def test(self) -> Pool:
        """See `Population`."""
        return self.inner.test

    @property
    def fingerprint(self) -> str:
        """See `Population`; the threats are part of the settings."""
        return self.inner.fingerprint

    def train(self, client: int) -> Samples:
        """See `Population`."""
        held, threat = self.inner.train(client), self.roles.of(client)
        if threat is None or threat.kind not in DATA_THREATS:
            return held
        draws = generator(self.seed, f"threat {threat.kind}", client=client)
        batch = self._spoiled(held.all(), threat, draws)
        return Samples(batch, np.arange(len(held)))

    def sizes(self) -> Indices:
        """See `KnowsSizes`."""
        return sizes_of(self.inner)

    def held_out(self, client: int) -> Samples:
        """See `Population`."""
        return self.inner.held_out(client)

    def to(self, device: str) -> Self:
        """See `Population`."""
        return type(self)(self.inner.to(device), self.roles, self.seed, self.tokens, self.labels)

    def _spoiled(self, batch: Batch, threat: ThreatConfig, draws: np.random.Generator) -> Batch:
        """Tokens are the first tensor, labels the last; of a language model's tokens both are one."""
        inputs, last = batch[0], batch[-1]
        real = last != IGNORED
        if threat.kind == "token_noise":
            if len(batch) == 1:
                return (_replaced(inputs, self.tokens, threat.force, draws),)
            noisy = _replaced(inputs, self.tokens, threat.force, draws)
            # Where there is no label, it may be padding.
            return (torch.where(real, noisy, inputs), *batch[1:])
        count = self.labels or self.tokens
        if threat.kind == "label_flip":
            wrong = count - 1 - last
        else:
            wrong = _replaced(last, count, threat.force, draws)
        return (*batch[:-1], torch.where(real, wrong, last))


def _replaced(values: Tensor, count: int, share: float, draws: np.random.Generator) -> Tensor:
    """Each with probability `share` another of 0 to count - 1, all of them alike likely."""
    struck = torch.from_numpy(draws.random(tuple(values.shape)) < share).to(values.device)
    shift = torch.from_numpy(draws.integers(1, max(count, 2), tuple(values.shape))).to(values.device)
    return torch.where(struck, (values + shift) % count, values)


# --- wrong updates -------------------------------------------------------------------------------


class Spoiler:
    """Changes what clients under a threat send."""

    def __init__(self, config: RunConfig, layout: ParameterLayout) -> None:
        """Draws who they are.

        Args:
            config: of the run.
            layout: of its model.
        """
        self.roles = Roles(config.threats, config.clients, config.seed)
        self.layout, self.seed, self.backend = layout, config.seed, config.backend

    def spoils(self, client: int) -> bool:
        """Whether this client's update is changed."""
        threat = self.roles.of(client)
        return threat is not None and threat.kind in UPDATE_THREATS

    def spoil_(self, params: Tensor, start: Tensor, round_index: int, client: int) -> None:
        """Changes an honest client's parameters into what it sends under its threat, if it has one.

        Args:
            params: [P], its parameters after local training.
            start: [P], the global parameters.
            round_index: with the client's number, its draws depend on it.
            client: its number.
        """
        threat = self.roles.of(client)
        if threat is None or threat.kind not in UPDATE_THREATS:
            return
        change = params - start
        if threat.kind in ("sign_flip", "scaling"):
            factor = -threat.force if threat.kind == "sign_flip" else threat.force
            params.copy_(start).add_(change, alpha=factor)
            return
        size = threat.force * self._rms(change)
        if threat.kind == "shift":
            params.add_(size * self._chosen(threat.layers).to(size.device))
            return
        draws = generator(self.seed, f"threat {threat.kind}", round_index, client)
        noise = torch.from_numpy(draws.standard_normal(len(params), dtype=np.float32)).to(params.device)
        if threat.kind == "random":
            params.copy_(start)
        params.add_(size * noise)

    def _rms(self, change: Tensor) -> Tensor:
        """[P]: for each number, the root mean square of its layer."""
        stats = layer_stats(change, self.layout, backend=self.backend).cpu()
        return self._spread(stats.l2 / stats.count.clamp(min=1).sqrt()).to(change.device)

    def _chosen(self, pattern: str) -> Tensor:
        """[P]: 1 for the numbers of layers whose name fits, 0 for the others."""
        return self._spread(torch.tensor([fnmatchcase(name, pattern) for name in self.layout.names]))

    def _spread(self, layers: Tensor) -> Tensor:
        """[L] to [P], float32."""
        sizes = torch.tensor([layer.numel for layer in self.layout.layers])
        return layers.float().repeat_interleave(sizes)


# --- clients that plot together ------------------------------------------------------------------


class Collusion:
    """A little is enough (Baruch et al., arXiv 1902.06156): mean - z std of the attackers' honest updates.

    Large enough to do harm, small enough to hide among honest clients. Attackers know each other's updates
    and nobody else's; all send the same.
    """

    def __init__(self, base: Tensor, roles: Roles) -> None:
        """Starts without attackers.

        Args:
            base: [P], the global parameters.
            roles: with the threat's strength: z; without one, as far as a majority of the cohort may still
                seem to agree with them (section 3 there).
        """
        strengths = [threat.strength for threat in roles.threats if threat.kind == COLLUSION]
        self._strength = strengths[0] if strengths else None
        # Most rounds have no attackers, and should not pay for the memory.
        self._base, self._mean, self._m2 = base, base[:0], base[:0]
        self.weights: list[float] = []

    def add_(self, params: Tensor, weight: float) -> None:
        """Takes an attacker's honest parameters [P] and its weight in the mean."""
        if not self.weights:
            self._mean, self._m2 = torch.zeros_like(self._base), torch.zeros_like(self._base)
        self.weights.append(weight)
        gap = params - self._mean
        self._mean.add_(gap, alpha=1 / len(self.weights))
        self._m2.addcmul_(gap, params - self._mean)

    def crafted(self, cohort: int) -> Tensor:
        """[P], the parameters that every attacker sends in a cohort of so many clients."""
        z = self._z(cohort) if self._strength is None else self._strength
        return self._mean - z * (self._m2 / len(self.weights)).sqrt()

    def _z(self, cohort: int) -> float:
        attackers = len(self.weights)
        honest = cohort - attackers
        if honest < 1:
            return 1.0
        supporters = cohort // 2 + 1 - attackers
        share = (honest - supporters) / honest
        # With a majority of attackers there is no bound; with very few there is nothing to gain.
        return max(0.0, NormalDist().inv_cdf(min(max(share, 0.01), 0.99)))
