"""Finishes and adds up the updates of clients that the vectorised engine trains together."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

from fedtlu_fast.aggregation.weighted_sum import aggregate
from fedtlu_fast.clients.trainer import (
    ONE_SUM,
    OWN_MODEL,
    SECOND_MODEL,
    ClientStart,
    ClientSum,
    ClientUpdate,
    Finish,
    Looks,
    Want,
)
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import ClientUpdates, VectorizedTrainer
from fedtlu_fast.scoring.client_values import read_at
from fedtlu_fast.soundness import sound_rows


class VectorizedGroups:
    """Makes a `VectorizedTrainer` a `GroupTrainer`: finishes its clients' updates and adds them up.

    Attributes:
        many: the engine that trains several clients together.
    """

    shows_vectors = True

    def __init__(self, many: VectorizedTrainer, alone: LocalTrainer, backend: str) -> None:
        """Keeps the engines.

        Args:
            many: the engine that trains several clients together.
            alone: the engine that trains the clients of a failed group one by one.
            backend: the backend that runs the kernels.
        """
        self.many, self._alone, self._backend = many, alone, backend

    @staticmethod
    def supports(want: Want, clients_per_batch: int = 1) -> str | None:
        """See `Trainer`."""
        reasons: dict[Want, str] = {
            "each vector": ONE_SUM,
            "own model": OWN_MODEL,
            "second model": SECOND_MODEL,
        }
        return reasons.get(want)

    def train_one(self, start: ClientStart, round_index: int, client: int) -> ClientUpdate:
        """See `Trainer`."""
        return self._alone.train_one(start, round_index, client)

    def train_group(
        self,
        starts: Sequence[ClientStart],
        round_index: int,
        clients: Sequence[int],
        finish: Finish | None,
        largest: float,
        looks: Looks,
    ) -> ClientSum:
        """See `GroupTrainer`."""
        base, whole = starts[0], range(len(self.many.layout.blocks))
        samples = [start.samples for start in starts]
        blocks = corrections = None
        if any(start.blocks is not None for start in starts):
            blocks = [whole if start.blocks is None else start.blocks for start in starts]
        if any(start.correction is not None for start in starts):
            zero = torch.zeros_like(base.params)
            corrections = [zero if start.correction is None else start.correction for start in starts]
        found = self.many.train(base.params, samples, round_index, clients, blocks, corrections)
        updates = [
            ClientUpdate(row, base.buffers, held, steps, loss, min(held, largest))
            for row, held, steps, loss in zip(
                found.params, found.samples, found.steps, found.losses, strict=True
            )
        ]
        if finish is not None:
            for index, place in enumerate(found.clients):
                row = updates[index].params
                updates[index] = finish(place, updates[index])
                if updates[index].params is not row:
                    row.copy_(updates[index].params)
        return self._added(found, updates, base.params, looks)

    def _added(
        self, found: ClientUpdates, updates: Sequence[ClientUpdate], base: Tensor, looks: Looks
    ) -> ClientSum:
        """Adds up the changes of the clients whose loss is finite and whose parameters are sound."""
        rows_sound = sound_rows(found.params)
        finite = [isfinite(own.loss) and row for own, row in zip(updates, rows_sound, strict=True)]
        weights = [own.counts for own in updates]
        accepted = [weight for weight, wanted in zip(weights, finite, strict=True) if wanted]
        part = values = None
        if accepted:
            rows = found.params if all(finite) else found.params[torch.tensor(finite)]
            part = aggregate(
                rows,
                accepted,
                self.many.layout,
                base=base,
                normalize=False,
                client_stats=looks.stats,
                backend=self._backend,
            )
            values = None if looks.places is None else read_at(looks.places, rows, base)
        held, losses = [own.samples for own in updates], [own.loss for own in updates]
        ranked = sorted(zip(found.clients, held, losses, finite, weights, strict=True))
        _, samples, means, sound, counted = map(list, zip(*ranked, strict=True))
        return ClientSum(
            torch.zeros_like(base) if part is None else part.change,
            samples,
            means,
            sound,
            counted,
            None if part is None else part.client_stats,
            accepted,
            [place for place, wanted in zip(found.clients, finite, strict=True) if wanted],
            values,
        )
