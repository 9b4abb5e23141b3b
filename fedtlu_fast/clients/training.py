"""Local training of one client: a few optimizer steps on its own samples, from the global parameters.

One model serves all clients in turn. Its parameters are views of one flat vector, so that a client's update
is a vector. Its gradients are views of another, so that an optimizer step, the proximal term and clipping
are each a single operation; see `leaves` for how they get there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from fedtlu_fast.clients.alternating import train_in_turn
from fedtlu_fast.clients.batches import batches, normalises_batches, probe_batches
from fedtlu_fast.clients.covered import check_held, try_steps
from fedtlu_fast.clients.cpu_images import with_cpu_images
from fedtlu_fast.clients.gradients import add_proximal_, clip_
from fedtlu_fast.clients.leaves import Leaves
from fedtlu_fast.clients.local import Local
from fedtlu_fast.clients.optimizer import Steps, TorchOptimizer, TorchSteps
from fedtlu_fast.clients.precision import Precision, in_precision
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate, SecondModel, Want
from fedtlu_fast.data.population import Batch, Indices, Pool, Samples, count
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.own_errors import is_ours
from fedtlu_fast.randomness import Draws, SeededWhereDrawn
from fedtlu_fast.tasks.task import Task


class LocalTrainer:
    """Trains clients one after another in the same memory.

    Attributes:
        other_buffers: the first values of the model's buffers outside the layout, by name.
    """

    def __init__(
        self,
        task: Task,
        layout: ParameterLayout,
        local: Local,
        seed: int,
        compiled: str = "none",
        precision: Precision = "float32",
    ) -> None:
        """Takes over the task's model: its parameters and gradients become views of flat vectors.

        Args:
            task: the model and its loss.
            layout: the model's layout.
            local: optimizer, steps, clipping, proximal term.
            seed: the run's seed.
            compiled: the mode in which torch.compile compiles the loss, or "none".
            precision: precision of the forward and backward pass; see `in_precision`.

        Raises:
            InputError: the device cannot compute in this precision.
        """
        self._loss: Callable[[Batch], Tensor] = task.loss
        self._one_shape = compiled != "none"
        if self._one_shape:
            # One graph for each shape of a batch: a graph for all shapes is slower and cannot be a CUDA
            # graph.
            self._loss = torch.compile(task.loss, mode=compiled, dynamic=False)
        else:
            self._loss = with_cpu_images(task.loss, task.model)
        self.task, self.layout, self.local, self.seed = task, layout, local, seed
        self.params = layout.flatten(task.model)
        self._loss = in_precision(self._loss, precision, self.params.device)
        self.grads = torch.zeros_like(self.params)
        layout.bind_(task.model, self.params)
        self._leaves = Leaves(task.model, layout, self.params, self.grads)
        # Buffers outside the layout (integer counters) are not sent, but must not carry one client's values
        # to the next client.
        learned = {slot.name for slot in layout.buffers}
        self._rest = {name: one for name, one in task.model.named_buffers() if name not in learned}
        self.other_buffers = {name: buffer.clone() for name, buffer in self._rest.items()}
        self._flat = nn.Parameter(self.params)
        self._flat.grad = self.grads
        self._draws, self._seeded = Draws(), SeededWhereDrawn()
        self._alone = not normalises_batches(task.model)
        self._whole = tuple(range(len(layout.blocks)))
        self._trained = self._whole
        self._runs = [slice(0, layout.size)]

    def load_(self, params: Tensor, buffers: Tensor) -> None:
        """Copies parameters [P] and buffers [Q] into the model, and resets its other buffers."""
        self.params.copy_(params)
        if self.layout.buffers:
            self.layout.load_buffers_(self.task.model, buffers)
        for name, buffer in self._rest.items():
            buffer.copy_(self.other_buffers[name])

    def train(
        self,
        params: Tensor,
        buffers: Tensor,
        samples: Samples,
        round_index: int,
        client: int,
        blocks: Sequence[int] | None = None,
        purpose: str = "",
        correction: Tensor | None = None,
        anchor: Tensor | None = None,
        mu: float | None = None,
    ) -> ClientUpdate:
        """Trains one client and returns its update.

        Args:
            params: [P] float32, the global parameters; not changed.
            buffers: [Q] float32, the global buffers; not changed.
            samples: the client's training samples, on the model's device.
            round_index: the round. All draws (batches, dropout) depend on seed, round and client number only.
            client: the client's number.
            blocks: indices of the blocks that the client trains; None: all blocks. The others keep their
                bits, and the backward pass ends at the lowest trained block.
            purpose: prefix that gives the second of a client's two passes draws of its own; empty by default.
            correction: [P] float32, added in every step to the gradients of the trained blocks before
                clipping.
            anchor: [P] float32, the point to which the proximal term holds the parameters; None: `params`.
            mu: strength of the proximal term; None: `Local.proximal_mu`.

        Raises:
            InputError: all blocks are trained, and the loss has no gradient.
        """
        self._freeze_(self._whole if blocks is None else tuple(blocks))
        self._leaves.attach_()
        self.load_(params, buffers)
        mu, anchor = self.local.proximal_mu if mu is None else mu, params if anchor is None else anchor
        whole = bool(mu) or correction is not None or self.local.clip_norm is not None
        direct = self.local.optimizer.flat and not whole and self._leaves.large
        own = self._leaves.pieces() if direct else self._own()
        steps = self._begin(own[0]) if self._runs else None
        draws = self._draws.generator(self.seed, f"{purpose}batches", round_index, client)
        if not self.task.model.training:
            self.task.model.train()
        losses = []
        with self._seeded(self.seed, f"{purpose}dropout", round_index, client):
            for places in batches(len(samples), self.local, draws, self._alone):
                self._leaves.clear_()
                loss = self._batch_loss(samples, places)
                if steps is not None:
                    if loss.requires_grad:  # False if the loss depends on none of the trained blocks
                        loss.backward()  # type: ignore[no-untyped-call]
                    elif self._trained == self._whole:
                        expected = "a loss that depends on the model's parameters; it has no gradient"
                        raise InputError(
                            "loss", float(loss), expected, "Look for detach() and torch.no_grad()."
                        )
                    if direct:
                        steps.step_(own[0], self._leaves.found())
                    else:
                        self._leaves.gather_()
                        add_proximal_(self.grads, self.params, anchor, mu)
                        if correction is not None:
                            for run in self._runs:
                                self.grads[run] += correction[run]
                        clip_(self._flat, self.local.clip_norm)
                        steps.step_(*own)
                losses.append(loss.detach())
        # Looking through the modules for buffers costs as much as a step of a small model.
        after = self.layout.flatten_buffers(self.task.model) if self.layout.buffers else buffers
        return ClientUpdate(
            params=self.params,
            buffers=after,
            samples=len(samples),
            steps=len(losses),
            loss=float(torch.stack(losses).double().mean()),
        )

    def supports(self, want: Want, clients_per_batch: int = 1) -> str | None:
        """See `Trainer`. This engine supports everything, except chosen blocks under torch.compile."""
        if self._one_shape and want == "blocks":
            return "torch.compile would compile the loss anew for every set of blocks"
        return None

    def train_one(self, start: ClientStart, round_index: int, client: int) -> ClientUpdate:
        """See `Trainer`."""
        if start.first:
            return train_in_turn(self.train, start, round_index, client)
        given = start.params, start.buffers, start.samples, round_index, client
        update = self.train(*given, start.blocks, "", start.correction)
        return update if start.second is None else self._with_second(start, start.second, update, *given[2:])

    def _with_second(
        self,
        start: ClientStart,
        second: SecondModel,
        update: ClientUpdate,
        samples: Samples,
        round_index: int,
        client: int,
    ) -> ClientUpdate:
        """Trains the client's second model and returns `update` with it."""
        sent = update.params.clone()  # the second training works in the same memory
        beside = self.train(
            second.params,
            second.buffers,
            samples,
            round_index,
            client,
            purpose="second ",
            anchor=start.params,
            mu=second.mu,
        )
        return replace(update, params=sent, second=(beside.params, beside.buffers))

    def gradient(
        self, params: Tensor, buffers: Tensor, samples: Samples, count: int, round_index: int, client: int
    ) -> Tensor:
        """Returns the mean gradient over some batches at the global parameters (a probe).

        Args:
            params: [P] float32, the global parameters; not changed.
            buffers: [Q] float32, the global buffers; not changed.
            samples: the client's training samples, on the model's device.
            count: number of batches; a client that has fewer takes all of its batches.
            round_index: the round. All draws depend on seed, round and client number only.
            client: the client's number.

        Returns:
            [P] float32, a working vector that the next call overwrites.
        """
        self._freeze_(self._whole)
        self.load_(params, buffers)
        draws = self._draws.generator(self.seed, "probe", round_index, client)
        plan = probe_batches(len(samples), self.local.batch_size, count, draws, self._alone)
        self._leaves.attach_()
        self.grads.zero_()
        self.task.model.train()
        with self._seeded(self.seed, "probe dropout", round_index, client):
            for places in plan:
                self._batch_loss(samples, places).backward()  # type: ignore[no-untyped-call]
        return self.grads.div_(len(plan))

    def test_gradient(self, params: Tensor, buffers: Tensor, samples: Pool, batch_size: int) -> Tensor:
        """Returns the gradient of the mean loss over samples, with the model as in tests (no dropout).

        Args:
            params: [P] float32; not changed.
            buffers: [Q] float32; not changed.
            samples: the samples, on the model's device; there is no draw.
            batch_size: samples in one pass.

        Returns:
            [P] float32, a working vector that the next call overwrites.
        """
        self._freeze_(self._whole)
        self.load_(params, buffers)
        self._leaves.attach_()
        self.grads.zero_()
        self.task.model.eval()
        held, predictions = Samples(samples, np.arange(count(samples))), 0
        for first in range(0, len(held), batch_size):
            batch = held.take(np.arange(first, min(first + batch_size, len(held))))
            own = int(self.task.counts(batch).sum())
            (self.task.loss(batch) * own).backward()  # type: ignore[no-untyped-call]
            predictions += own
        return self.grads.div_(max(predictions, 1))

    def try_optimizer(self) -> None:
        """Checks, for a user's optimizer, that it trains every parameter; the model is not changed.

        Raises:
            InputError: it does not.
        """
        optimizer = self.local.optimizer
        if is_ours(optimizer) and not isinstance(optimizer, TorchOptimizer):
            return

        def begin() -> tuple[Steps, Sequence[Tensor], Sequence[Tensor]]:
            own = self._own()
            return self._begin(own[0]), *own

        self._freeze_(self._whole)
        self._leaves.attach_()
        try_steps(optimizer, begin, self.layout, (self.params, self.grads))

    def _own(self) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the trained parameters and their gradients: pieces of the flat vectors if the optimizer is
        `flat`, otherwise the model's own tensors.
        """
        if self.local.optimizer.flat:
            return [self.params[run] for run in self._runs], [self.grads[run] for run in self._runs]
        params = self._leaves.trained()
        return list(params), [param.grad for param in params if param.grad is not None]

    def _begin(self, params: Sequence[Tensor]) -> Steps:
        steps = self.local.optimizer.start(params)
        if isinstance(steps, TorchSteps):
            check_held(steps, params, self.task.model)
        return steps

    def _batch_loss(self, samples: Samples, places: Indices) -> Tensor:
        batch = samples.take(places)
        return self._loss(batch if self._one_shape else self.task.trim(batch))

    def _freeze_(self, blocks: tuple[int, ...]) -> None:
        """Makes torch compute gradients of these blocks only."""
        if blocks == self._trained:
            return
        chosen = self.layout.layer_mask(blocks).tolist()
        wanted = {name for name, trained in zip(self.layout.names, chosen, strict=True) if trained}
        for layer, param in zip(self.layout.layers, self._leaves.params, strict=True):
            param.requires_grad_(layer.name in wanted)
        self._trained, self._runs = blocks, self.layout.runs(blocks)
