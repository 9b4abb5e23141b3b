"""Parts as a user would write them; tests give them by their dotted names."""

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
    """A rule that shrinks the mean of the changes.

    Attributes:
        floor: the factor of the mean.
    """

    floor: Annotated[float, Field(gt=0, le=1)] = 0.5

    def start(self, start: Start) -> dict[str, object]:
        """Returns an empty sum."""
        return {"base": start.base, "sum": torch.zeros_like(start.base), "total": 0.0, "clients": []}

    def add(self, state, client, weight, vector):
        """Adds a client."""
        state["sum"] += weight * (vector - state["base"])
        state["total"] += weight
        state["clients"].append(client)
        return state

    def finish(self, state) -> Aggregated:
        """Returns the smaller mean."""
        return Aggregated(self.floor * state["sum"] / max(state["total"], 1))


@dataclass(frozen=True)
class Unchecked(Cautious):
    """A rule that is a plain dataclass without @part."""

    more: int = 1


def middle(updates: Tensor, weights: Tensor) -> Tensor:
    """A rule that is a function: the weighted mean."""
    shares = (weights / weights.sum()).to(updates.dtype)
    return (shares[:, None] * updates).sum(dim=0)


def transposed(updates: Tensor, weights: Tensor) -> Tensor:
    """A wrong rule, whose result has another shape."""
    return updates.T


@part
class Stripes(Partitioner):
    """A partitioner that deals stripes of samples to the clients in turn.

    Attributes:
        width: number of samples in a stripe.
    """

    width: Annotated[int, Field(ge=1)] = 1

    def partition(self, to_deal: ToDeal, generator: np.random.Generator) -> list[np.ndarray]:
        """Deals every sample, without randomness."""
        if to_deal.samples < to_deal.clients * self.width:
            raise InputError("width", self.width, f"stripes for all {to_deal.clients} clients")
        turns = np.arange(to_deal.samples) // self.width % to_deal.clients
        return [np.flatnonzero(turns == client) for client in range(to_deal.clients)]


@part
class Odd(Budget):
    """A budget with which clients with odd numbers train more.

    Attributes:
        low: number of layers of clients with even numbers.
        high: number of layers of clients with odd numbers.
    """

    low: int = 1
    high: int = 2

    def of(self, seed: int, clients) -> np.ndarray:
        """Returns the budgets by the parity of the clients' numbers."""
        return np.where(np.asarray(clients, np.int64) % 2, self.high, self.low)


def rmsprop(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """A client optimizer that is a function."""
    return torch.optim.RMSprop(parameters, lr=0.01)


@dataclass(frozen=True)
class Wrong:
    """A dataclass that is not a part of any kind."""
