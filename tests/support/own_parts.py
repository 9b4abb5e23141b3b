"""Parts as a user would write them, which tests bring by their dotted names."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedtlu_fast.aggregation import Aggregated, AggregationRule, Start
from fedtlu_fast.data.partition import Partitioner, ToDeal
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part
from fedtlu_fast.selection.budgets import Budget


@part
class Cautious(AggregationRule):
    """The mean of the changes, made smaller.

    Attributes:
        floor: what the mean is multiplied by.
    """

    floor: Annotated[float, Field(gt=0, le=1)] = 0.5

    def start(self, start: Start) -> dict[str, object]:
        """An empty sum."""
        return {"base": start.base, "sum": torch.zeros_like(start.base), "total": 0.0, "clients": []}

    def add(self, state, client, weight, vector):
        """One client more."""
        state["sum"] += weight * (vector - state["base"])
        state["total"] += weight
        state["clients"].append(client)
        return state

    def finish(self, state) -> Aggregated:
        """The smaller mean."""
        return Aggregated(self.floor * state["sum"] / max(state["total"], 1))


@dataclass(frozen=True)
class Unchecked(Cautious):
    """A plain dataclass serves too."""

    more: int = 1


def middle(updates: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean as a function."""
    shares = (weights / weights.sum()).to(updates.dtype)
    return (shares[:, None] * updates).sum(dim=0)


def transposed(updates: Tensor, weights: Tensor) -> Tensor:
    """Not what a rule returns."""
    return updates.T


@part
class Stripes(Partitioner):
    """Clients take turns, a stripe of samples each.

    Attributes:
        width: samples of a stripe.
    """

    width: Annotated[int, Field(ge=1)] = 1

    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[np.ndarray]:
        """Every sample is dealt, and nothing is drawn."""
        if to_deal.samples < to_deal.clients * self.width:
            raise InputError("width", self.width, f"stripes for all {to_deal.clients} clients")
        turns = np.arange(to_deal.samples) // self.width % to_deal.clients
        return [np.flatnonzero(turns == client) for client in range(to_deal.clients)]


@part
class Odd(Budget):
    """Clients with odd numbers train more.

    Attributes:
        low: the others' layers.
        high: their layers.
    """

    low: int = 1
    high: int = 2

    def of(self, seed: int, clients) -> np.ndarray:
        """By the number's parity."""
        return np.where(np.asarray(clients, np.int64) % 2, self.high, self.low)


def rmsprop(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """A client optimizer as a function."""
    return torch.optim.RMSprop(parameters, lr=0.01)


@dataclass(frozen=True)
class Wrong:
    """A part of no kind."""
