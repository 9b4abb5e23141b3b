"""The steps of K clients that train together: the batches of each step, and the layers that stay frozen."""

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
    """The layers that some of K clients do not train.

    Attributes:
        trained: the layers that at least one client trains.
        of_some: each layer that at least one client does not train, with a mask [K] bool that is true for
            those clients.
    """

    trained: tuple[Layer, ...]
    of_some: tuple[tuple[Layer, Tensor], ...]

    @classmethod
    def of(cls, layout: ParameterLayout, blocks: Sequence[Sequence[int]], device: torch.device) -> Frozen:
        """Makes it from the indices of the blocks that each of the K clients trains."""
        masks = torch.stack([layout.layer_mask(own) for own in blocks])
        trained = masks.any(dim=0).nonzero().flatten().tolist()
        partly = (~masks.all(dim=0)).nonzero().flatten().tolist()
        return cls(
            trained=tuple(layout.layers[at] for at in trained),
            of_some=tuple((layout.layers[at], ~masks[:, at].to(device)) for at in partly),
        )

    def clear_(self, grads: Tensor) -> None:
        """Sets the gradients of untrained layers to 0.

        Args:
            grads: [k, P], changed in place; the first k of the K clients.
        """
        for layer, frozen in self.of_some:
            grads[frozen[: len(grads)], layer.offset : layer.offset + layer.numel] = 0

    def restore_(self, matrix: Tensor, start: Tensor) -> None:
        """Gives untrained layers their values from before the training back, bit for bit.

        A step changes them in spite of zero gradients: by weight decay; by the rounding errors of a proximal
        term of zero, which AdamW scales up to whole steps; and with NaN where a gradient was clipped by a
        norm that is NaN.

        Args:
            matrix: [k, P], the parameters of the first k of the K clients; changed in place.
            start: [P], the parameters at the start of the training.
        """
        for layer, frozen in self.of_some:
            place = slice(layer.offset, layer.offset + layer.numel)
            matrix[frozen[: len(matrix)], place] = start[place]


@dataclass(frozen=True)
class Schedule:
    """The batches of K clients side by side, sorted by the clients' number of steps, largest first.

    Attributes:
        places: [K, S, B] int64, the samples of each client's batch in each step. A batch with fewer than B
            samples is filled up with its own first sample.
        weights: [K, S, B] float32, 1 / b for the b samples of a batch, 0 for what fills it up.
        steps: [K], number of steps of each client.
        active: [S], number of clients that take part in each step; they are the first rows.
    """

    places: Indices
    weights: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    steps: Indices
    active: list[int]

    @classmethod
    def of(cls, plans: Sequence[Sequence[Indices]]) -> Schedule:
        """Makes a schedule from each client's batches; clients with more steps must come first."""
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
                # Filled up with the batch's own sample: a NaN in a sample that the client never draws must
                # not reach its gradient.
                places[row, step], places[row, step, : len(batch)] = batch[0], batch
                weights[row, step, : len(batch)] = 1 / len(batch)
        active = [int((steps > step).sum()) for step in range(shape[1])]
        return cls(places, weights, steps, active)


def by_predictions(real: Tensor, counts: Tensor) -> Tensor:
    """Returns the weights with which the samples' mean losses sum to the mean over all predictions.

    If all samples have the same number of predictions, the weights are 1 / b, with the same bits as
    `Schedule.weights`.

    Args:
        real: [K, B] bool, false where a batch was filled up.
        counts: [K, B], number of predictions in each sample.

    Returns:
        [K, B] float32. Each row sums to 1, or to 0 if its batch has no prediction.
    """
    shares = (counts * real).float()
    return shares / shares.sum(dim=1, keepdim=True).clamp(min=1)
