"""The selectors. To add one: a class with `metrics` and `choose`, and a line in SELECTORS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.errors import not_one_of
from fedtlu_fast.layout import ParameterLayout

Mask = NDArray[np.bool_]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """What a selector may look at.

    Attributes:
        layout: blocks and groups.
        metrics: by name, [R, B] float64, larger is better; those that the selector's `metrics` names.
        generator: this round's source of chance, a pure function of seed and round.
        rows: R, the number of choices to make: 1 for the server, C for C clients.
        round: which round it is, from 1.
        generators: one for each row, where every client draws for itself; else empty.
    """

    layout: ParameterLayout
    metrics: Mapping[str, Vector]
    generator: np.random.Generator
    rows: int = 1
    round: int = 1
    generators: Sequence[np.random.Generator] = ()

    def uniform(self) -> Vector:
        """[R, B], drawn from [0, 1)."""
        blocks = len(self.layout.blocks)
        if self.generators:
            return np.stack([own.random(blocks) for own in self.generators])
        return self.generator.random((self.rows, blocks))


class Selector(Protocol):
    """Chooses blocks."""

    metrics: frozenset[str]
    """Names of the metrics it wants to see; nothing else is computed for it."""

    def choose(self, evidence: Evidence, quotas: Sequence[int]) -> Mask:
        """[R, B]: the chosen blocks of each group, at most ``quotas[g]`` in group g."""
        ...


class Ranking:
    """A selector that keeps the best blocks of every group by a utility of its own."""

    metrics: frozenset[str] = frozenset()

    def utility(self, evidence: Evidence) -> Vector:
        """[R, B]: larger is better; compared within a group only."""
        raise NotImplementedError

    def choose(self, evidence: Evidence, quotas: Sequence[int]) -> Mask:
        """The ``quotas[g]`` best of group g; equal utilities go to the earlier block."""
        utility = self.utility(evidence)
        mask = np.zeros(utility.shape, dtype=np.bool_)
        for group, quota in zip(evidence.layout.groups, quotas, strict=True):
            blocks = np.array(group.blocks)
            best = np.argsort(-utility[:, blocks], axis=1, kind="stable")[:, :quota]
            np.put_along_axis(mask, blocks[best], True, axis=1)
        return mask


class FedTLU(Ranking):
    """The best-scoring blocks of the aggregated change (FedTLU, arXiv 2412.17692)."""

    def __init__(self, metric: str = "excess") -> None:
        """Names the score: ``excess`` is the paper's (Eq. 1)."""
        self.metric = metric
        self.metrics = frozenset({metric})

    def utility(self, evidence: Evidence) -> Vector:
        """Block scores."""
        return evidence.metrics[self.metric]


class Random(Ranking):
    """Blocks drawn without replacement, anew every round: FedTLU's first baseline."""

    def utility(self, evidence: Evidence) -> Vector:
        """Uniform draws."""
        return evidence.uniform()


class Last(Ranking):
    """The blocks nearest the output: FedTLU's second baseline, ``top`` of the client-side paper."""

    def utility(self, evidence: Evidence) -> Vector:
        """Position in the model."""
        return np.tile(np.arange(len(evidence.layout.blocks), dtype=np.float64), (evidence.rows, 1))


class First(Ranking):
    """The blocks nearest the input, ``bottom`` of the client-side paper (arXiv 2408.15600)."""

    def utility(self, evidence: Evidence) -> Vector:
        """Position in the model, from the end."""
        return -Last().utility(evidence)


class Full:
    """Every block: plain FedAvg or FedProx."""

    metrics: frozenset[str] = frozenset()

    def choose(self, evidence: Evidence, quotas: Sequence[int]) -> Mask:
        """All True, whatever the quotas and the rule for blocks without a like."""
        return np.ones((evidence.rows, len(evidence.layout.blocks)), dtype=np.bool_)


SELECTORS: dict[str, type[Selector]] = {
    "fedtlu": FedTLU,
    "random": Random,
    "last": Last,
    "first": First,
    "full": Full,
}


def make_selector(name: str, metric: str = "excess") -> Selector:
    """The selector of this name.

    Args:
        name: one of SELECTORS.
        metric: what fedtlu ranks by.

    Raises:
        InputError: there is none.
    """
    if name not in SELECTORS:
        raise not_one_of("selection.selector", name, SELECTORS)
    kind = SELECTORS[name]
    return FedTLU(metric) if kind is FedTLU else kind()
