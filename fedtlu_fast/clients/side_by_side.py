"""What K clients that train at the same time do in each step: whose batch is which, and what stays frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.data.population import Indices
from fedtlu_fast.layout import Layer, ParameterLayout


@dataclass(frozen=True)
class Frozen:
    """What some of K clients do not train.

    Attributes:
        trained: the layers that any of them trains.
        of_some: those that not all of the K train, and who does not: [K] bool.
    """

    trained: tuple[Layer, ...]
    of_some: tuple[tuple[Layer, Tensor], ...]

    @classmethod
    def of(cls, layout: ParameterLayout, blocks: Sequence[Sequence[int]], device: torch.device) -> Frozen:
        """From the blocks that each client trains."""
        masks = torch.stack([layout.layer_mask(own) for own in blocks])
        trained = masks.any(dim=0).nonzero().flatten().tolist()
        partly = (~masks.all(dim=0)).nonzero().flatten().tolist()
        return cls(
            trained=tuple(layout.layers[at] for at in trained),
            of_some=tuple((layout.layers[at], ~masks[:, at].to(device)) for at in partly),
        )

    def clear_(self, grads: Tensor) -> None:
        """Sets the gradients [K, P] of what is not trained to 0; K may have shrunk to the first rows."""
        for layer, frozen in self.of_some:
            grads[frozen[: len(grads)], layer.offset : layer.offset + layer.numel] = 0

    def restore_(self, matrix: Tensor, start: Tensor) -> None:
        """Undoes what a step has done to what is not trained.

        That is weight decay; what rounding leaves of a proximal term of zero, which AdamW makes steps of; and
        NaN, of a gradient that was clipped by a norm that is NaN.
        """
        for layer, frozen in self.of_some:
            place = slice(layer.offset, layer.offset + layer.numel)
            matrix[frozen[: len(matrix)], place] = start[place]


@dataclass(frozen=True)
class Schedule:
    """The batches of K clients, those with most steps first, side by side.

    Attributes:
        places: [K, S, B], which samples; batches shorter than B are filled up with their own first.
        weights: [K, S, B] float32: 1 / b for the b samples of a batch, 0 where it was filled up.
        steps: [K], steps of each client.
        active: [S], how many clients take part in each step: always the first ones.
    """

    places: Indices
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    steps: Indices
    active: list[int]

    @classmethod
    def of(cls, plans: Sequence[Sequence[Indices]]) -> Schedule:
        """From each client's batches."""
        steps = np.array([len(plan) for plan in plans])
        widths = {len(batch) for plan in plans for batch in plan}
        if len(widths) == 1 and steps[-1] == steps[0]:
            places = np.array(plans)
            return cls(
                places, np.full(places.shape, 1 / places.shape[2], np.float32), steps, [len(plans)] * steps[0]
            )
        shape = (len(plans), int(steps[0]), max(widths))
        places, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        for row, plan in enumerate(plans):
            for step, batch in enumerate(plan):
                # Not with any other sample: a NaN that the client never meets must not count.
                places[row, step], places[row, step, : len(batch)] = batch[0], batch
                weights[row, step, : len(batch)] = 1 / len(batch)
        active = [int((steps > step).sum()) for step in range(shape[1])]
        return cls(places, weights, steps, active)


def by_predictions(real: Tensor, counts: Tensor) -> Tensor:
    """Weights [K, B] of the samples' mean losses that make the mean over each batch's predictions.

    With the same number of predictions in all samples they are 1 / b, the same bits as `Schedule.weights`.

    Args:
        real: [K, B] bool, False where a batch was filled up.
        counts: [K, B], predictions of each sample.
    """
    shares = (counts * real).float()
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=1)
