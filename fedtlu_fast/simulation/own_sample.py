"""The loss on a client's own kept-back samples after each part of its change that it could send."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtlu_fast.client_steps.step import ClientContext
from fedtlu_fast.clients.trainer import Blocks, ClientUpdate
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.data.kept_back import split_kept_back
from fedtlu_fast.data.population import Pool, Population
from fedtlu_fast.errors import InputError
from fedtlu_fast.scoring.held_out import check_blocks


@dataclass(frozen=True)
class OwnSamples:
    """What clients need to look at samples that they keep back, before they choose what they send.

    Attributes:
        trainer: has the model, whose memory is borrowed for a loss.
        population: says what each client keeps back.
        share: the share of it that a client looks at; the rest is for its local test.
        batch_size: samples in one forward pass.
    """

    trainer: LocalTrainer
    population: Population
    share: float
    batch_size: int

    def of(self, client: ClientContext, update: ClientUpdate, always: Blocks) -> OwnSample:
        """Returns the losses that a client can ask for after its training.

        Args:
            client: the client and the round, with its start.
            update: the result of its training.
            always: the blocks that it sends in any case.

        Raises:
            InputError: the client keeps no samples back.
        """
        held, _ = split_kept_back(self.population.held_out(client.number), self.share)
        if not len(held):
            fix = "Give it some, or leave such clients out of their rounds with execution.client_errors=drop."
            expected = "samples that it keeps back, by which client_selection.selector chooses"
            raise InputError(f"data of client {client.number}", "no test of its own", expected, fix)
        return OwnSample(self.trainer, held.alone(), self.batch_size, client, update, always)


class OwnSample:
    """Implements `scoring.held_out.HeldOut` for one client and its own change.

    Blocks are applied to the model that the client started from: the global one, with the client's own values
    of what it keeps for itself. Buffers are those after its training. Nothing that the client has trained is
    changed, and a loss is computed once.
    """

    def __init__(
        self,
        trainer: LocalTrainer,
        sample: Pool,
        batch_size: int,
        client: ClientContext,
        update: ClientUpdate,
        always: Blocks,
    ) -> None:
        """Prepares the losses; no forward pass is made yet.

        Args:
            trainer: has the model.
            sample: the samples, on the model's device.
            batch_size: samples in one forward pass.
            client: the client and the round, with its start.
            update: the result of its training, in the form in which it would send all of it.
            always: the blocks that it sends in any case, which are applied in every loss.
        """
        self._trainer, self._sample, self._batch_size = trainer, sample, batch_size
        start = client if client.start is None else client.start
        self._params, self._old_buffers = start.params, start.buffers
        self._change = update.params - client.params
        # What a client keeps for itself is put back to the global values before this.
        unchanged = update.buffers == client.buffers
        self._buffers = torch.where(unchanged, start.buffers, update.buffers)
        layout = trainer.layout
        runs = {block: layout.runs([block]) for block in range(len(layout.blocks))}
        self._runs = {
            block: own for block, own in runs.items() if any(bool(self._change[run].any()) for run in own)
        }
        self._always = frozenset(always)
        self._known: dict[frozenset[int], float] = {}

    def loss(self, blocks: Collection[int]) -> float:
        """See `HeldOut`. Blocks that the training did not change cost no forward pass.

        Raises:
            InputError: one of them is no block.
        """
        check_blocks(blocks, self._trainer.layout)
        chosen = (self._always | frozenset(blocks)) & frozenset(self._runs)
        if chosen not in self._known:
            self._known[chosen] = self._loss(chosen)
        return self._known[chosen]

    def gradient(self) -> Tensor:
        """See `HeldOut`."""
        with self._borrowed() as trainer:
            given = self._params, self._old_buffers, self._sample, self._batch_size
            return trainer.test_gradient(*given).clone()  # the trainer works in the same memory

    def _loss(self, blocks: Collection[int]) -> float:
        params = self._params.clone()
        for run in (run for block in blocks for run in self._runs[block]):
            params[run] += self._change[run]
        with self._borrowed() as trainer:
            trainer.load_(params, self._buffers)
            return float(trainer.task.evaluate(self._sample, self._batch_size).loss)

    @contextmanager
    def _borrowed(self) -> Iterator[LocalTrainer]:
        """Lends the model, and gives back its parameters, which may be the client's update itself."""
        kept = self._trainer.params.clone()
        try:
            yield self._trainer
        finally:
            self._trainer.params.copy_(kept)
