"""Selectors, scores and metrics as a user would write them; tests give them by their dotted names."""

from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from fedtlu_fast.parts import part
from fedtlu_fast.scoring.block_metrics import Change, asks
from fedtlu_fast.scoring.gradient_metrics import ClientVectors
from fedtlu_fast.selection import Evidence, Mask, Ranking, Room, Selector

SEEN: list[tuple[Evidence, Room, Mask]] = []
"""The evidence that `Watching` received and its choices, in this process."""


@part
class Keen(Selector):
    """The blocks in order, those of the round before first.

    Attributes:
        boost: how much the choice of the round before counts.
    """

    boost: Annotated[float, Field(ge=0)] = 1.0

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """See the class."""
        before = (
            np.zeros(len(evidence.layout.blocks)) if evidence.last_choice is None else evidence.last_choice
        )
        return room.best(np.tile(self.boost * before, (evidence.rows, 1)))


@part
class Watching(Selector):
    """The best by the sum of all that it needs.

    Attributes:
        wants: what it needs.
    """

    wants: tuple[str, ...] = ("excess",)

    @property
    def needs(self) -> tuple[str, ...]:
        """The metrics of `wants`."""
        return self.wants

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Chooses by the sum of its metrics, and records evidence and choice in `SEEN`."""
        shape = evidence.rows, len(evidence.layout.blocks)
        mask = room.best(sum((evidence.metrics[name] for name in self.metrics), np.zeros(shape)))
        SEEN.append((evidence, room, mask))
        return mask


class Outside(Selector):
    """A wrong selector, which takes blocks that may not be chosen."""

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Chooses all blocks."""
        return np.ones((evidence.rows, len(evidence.layout.blocks)), np.bool_)


def largest(change: Change) -> torch.Tensor:
    """A score: the largest magnitude in each block."""
    return torch.stack([change.stats.abs_max[list(block.layers)].max() for block in change.layout.blocks])


@asks("client_stats")
def apart(change: Change) -> torch.Tensor:
    """A score of single clients: how much the means of their changes differ in each block."""
    assert change.client_stats is not None
    spread = change.client_stats.mean.std(dim=0, correction=0)
    return torch.stack([spread[list(block.layers)].sum() for block in change.layout.blocks])


def leaning(change: Change) -> torch.Tensor:
    """A score: the mean of the first layer of each block."""
    return torch.stack([change.stats.mean[block.layers[0]] for block in change.layout.blocks])


def lean(vectors: ClientVectors) -> torch.Tensor:
    """A client metric: the mean of the first layer of each block."""
    return torch.stack([vectors.stats.mean[:, block.layers[0]] for block in vectors.layout.blocks], dim=-1)


def broken(change: Change) -> torch.Tensor:
    """A score that raises an error."""
    raise ZeroDivisionError("no luck")


def short(change: Change) -> list[float]:
    """A score of the wrong length."""
    return [1.0, 2.0]


REMEMBERED: list[tuple[int, dict[str, torch.Tensor], Mask]] = []
"""What `Counting` was called with, in this process: the round, its memory and the applied blocks."""


@part
class Counting(Ranking):
    """Applies the blocks that were applied least often; it remembers tensors of several kinds.

    Attributes:
        weight: how much each time counts.
    """

    weight: Annotated[float, Field(ge=0)] = 1.0

    def utility(self, evidence: Evidence) -> NDArray[np.float64]:
        """Counts down from zero, with a little chance between equal blocks."""
        held = evidence.memory.get("times")
        times = np.zeros(len(evidence.layout.blocks)) if held is None else held.double().numpy()
        return 0.1 * evidence.uniform() - self.weight * times[None]

    def remembers(self, evidence: Evidence, applied: Mask) -> dict[str, torch.Tensor]:
        """Returns how often each block was applied, and more."""
        REMEMBERED.append((evidence.round, dict(evidence.memory), applied))
        times = evidence.memory.get("times", torch.zeros(len(applied), dtype=torch.bfloat16))
        return {
            "times": times + torch.from_numpy(applied),
            "last/round": torch.tensor(evidence.round),
            "drawn": torch.rand(2),
        }
