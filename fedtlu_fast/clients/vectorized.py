"""The vectorised engine: it trains K clients together, with the arithmetic of `training.LocalTrainer`.

The K clients' parameters are the rows of a matrix [K, P]; a forward pass is one call of `torch.func.vmap`,
and an optimizer step is one operation on the matrix. For small models nearly all the time of the plain loop
is overhead, which is paid here once for K clients. Each client's arithmetic is the same, but sums are formed
in another order: results agree with `LocalTrainer` to float32 rounding, not to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose, isfinite

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedtlu_fast.clients.batches import batches, probe_batches
from fedtlu_fast.clients.local import Local
from fedtlu_fast.clients.precision import Precision, in_precision
from fedtlu_fast.clients.side_by_side import Frozen, Schedule, by_predictions
from fedtlu_fast.clients.unvectorized import reason_of, used_twice
from fedtlu_fast.data.population import Batch, Indices, Samples, take_each
from fedtlu_fast.errors import FedtluError, InputError
from fedtlu_fast.layout import Layer, ParameterLayout
from fedtlu_fast.models.plain_attention import PlainAttention
from fedtlu_fast.randomness import Draws
from fedtlu_fast.tasks.task import Task

TRIED = 4
"""Number of samples with which the vectorised and the plain loss are compared."""


class CannotVectorizeError(FedtluError):
    """The model cannot be trained for many clients at once; the message says why."""


@dataclass(frozen=True)
class ClientUpdates:
    """The results of K clients' local training.

    Attributes:
        params: [K, P] float32, the clients' parameters after local training, in the order of `clients`; a
            working matrix that the next call overwrites.
        clients: [K], places of the clients in the given list, sorted by their number of steps, largest first.
        samples: [K], n_k, the clients' numbers of samples, in the order of `clients`.
        steps: [K], numbers of optimizer steps, in the order of `clients`.
        losses: [K], mean training losses over the steps, in the order of `clients`.
    """

    params: Tensor
    clients: list[int]
    samples: list[int]
    steps: list[int]
    losses: list[float]


class VectorizedTrainer:
    """Trains up to `clients_per_batch` clients together, group after group in the same memory."""

    def __init__(
        self,
        task: Task,
        layout: ParameterLayout,
        local: Local,
        seed: int,
        clients_per_batch: int,
        example: Samples,
        precision: Precision = "float32",
    ) -> None:
        """Allocates the matrices and tries the model, which is not changed.

        Args:
            task: the model and its loss.
            layout: the model's layout.
            local: optimizer, steps, clipping, proximal term.
            seed: the run's seed.
            clients_per_batch: largest K.
            example: any samples of the task's kind, with which the model is tried.
            precision: precision of the forward and backward pass; see `in_precision`.

        Raises:
            InputError: the device has no such precision.
            CannotVectorizeError: the model keeps running statistics, or normalises over the batch
                (BatchNorm): what fills up the shorter batches would take part in it; it draws random numbers
                in training; its optimizer is not `flat`; or torch cannot vectorise it.
        """
        if not local.optimizer.flat:
            raise CannotVectorizeError("its optimizer takes the parameters of one model")
        if layout.buffers:
            raise CannotVectorizeError(f"it keeps running statistics ({layout.buffers[0].name})")
        for name, module in task.model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise CannotVectorizeError(f"it normalises over the batch ({name})")
        if (twice := used_twice(task.model)) is not None:
            raise CannotVectorizeError(f"it holds one module in several places ({' and '.join(twice)})")
        self.layout, self.local, self.seed = layout, local, seed
        self._task, self._losses = task, _Losses(task)
        device = next(task.model.parameters()).device
        self._params = torch.empty(clients_per_batch, layout.size, device=device)
        self._grads = torch.empty_like(self._params)
        self._each_loss = in_precision(vmap(self._losses_of), precision, device)
        self._draws = Draws()
        self._try(example)

    def train(
        self,
        params: Tensor,
        samples: Sequence[Samples],
        round_index: int,
        clients: Sequence[int],
        blocks: Sequence[Sequence[int]] | None = None,
        corrections: Sequence[Tensor] | None = None,
    ) -> ClientUpdates:
        """Trains K clients from the same parameters; see `LocalTrainer.train`.

        Args:
            params: [P] float32, the global parameters; not changed.
            samples: [K], each client's training samples, on the model's device.
            round_index: the round. All draws depend on seed, round and client number only.
            clients: [K], the clients' numbers.
            blocks: [K], indices of the blocks that each client trains; None: all blocks. The others keep
                their bits.
            corrections: [K], each client's correction [P]; see `LocalTrainer.train`. None: no corrections.
        """
        plans = [self._plan(len(held), round_index, k) for held, k in zip(samples, clients, strict=True)]
        # Sorted by the number of steps, so that the clients that still train are always the first rows.
        order = sorted(range(len(plans)), key=lambda k: -len(plans[k]))
        schedule = Schedule.of([plans[k] for k in order])
        held = [samples[k] for k in order]
        matrix, grads = self._params[: len(order)], self._grads[: len(order)]
        matrix.copy_(params)
        frozen = None
        if blocks is not None:
            frozen = Frozen.of(self.layout, [blocks[k] for k in order], matrix.device)
        layers = self.layout.layers if frozen is None else frozen.trained
        if frozen is not None:
            grads.zero_()
        added = None if corrections is None else torch.stack([corrections[k] for k in order])
        steps = self.local.optimizer.start([matrix])
        totals = torch.zeros(len(order), dtype=torch.float64, device=matrix.device)
        self._losses.train()
        for step, active in enumerate(schedule.active):
            batch, weights = self._step_batch(held, schedule, step)
            losses = self._gradients(matrix[:active], grads[:active], batch, weights, layers)
            if frozen is not None:
                frozen.clear_(grads[:active])
            self._adjust_(grads[:active], matrix[:active], params, added, frozen)
            steps.step_([matrix[:active]], [grads[:active]])
            if frozen is not None:
                frozen.restore_(matrix[:active], params)
            totals[:active] += losses
        mean = totals / torch.from_numpy(schedule.steps).to(totals.device)
        return ClientUpdates(
            params=matrix,
            clients=order,
            samples=[len(own) for own in held],
            steps=schedule.steps.tolist(),
            losses=mean.tolist(),
        )

    def gradients(
        self, params: Tensor, samples: Sequence[Samples], count: int, round_index: int, clients: Sequence[int]
    ) -> Tensor:
        """Returns the mean gradients [K, P] of K clients (`LocalTrainer.gradient`).

        Args:
            params: [P] float32, the global parameters; not changed.
            samples: [K], each client's training samples, on the model's device.
            count: number of batches; a client that has fewer takes all of its batches.
            round_index: the round. All draws depend on seed, round and client number only.
            clients: [K], the clients' numbers.
        """
        plans = []
        for own, client in zip(samples, clients, strict=True):
            draws = self._draws.generator(self.seed, "probe", round_index, client)
            plans.append(probe_batches(len(own), self.local.batch_size, count, draws))
        order = sorted(range(len(plans)), key=lambda k: -len(plans[k]))
        schedule = Schedule.of([plans[k] for k in order])
        held = [samples[k] for k in order]
        matrix, grads = self._params[: len(order)], self._grads[: len(order)]
        sums = torch.zeros_like(grads)
        matrix.copy_(params)
        self._losses.train()
        for step, active in enumerate(schedule.active):
            batch, weights = self._step_batch(held, schedule, step)
            self._gradients(matrix[:active], grads[:active], batch, weights, self.layout.layers)
            sums[:active] += grads[:active]
        steps = torch.from_numpy(schedule.steps).to(sums.device, sums.dtype)
        back = torch.from_numpy(np.argsort(order)).to(sums.device)
        return sums.div_(steps[:, None])[back]

    def _step_batch(self, held: Sequence[Samples], schedule: Schedule, step: int) -> tuple[Batch, Tensor]:
        """Returns the batches of the clients that still train in a step, and the samples' weights [K, B]."""
        active = schedule.active[step]
        taken = take_each(held[:active], schedule.places[:active, step])
        # Trimmed here, because under vmap a shape cannot depend on the data.
        flat = self._task.trim(tuple(part.flatten(0, 1) for part in taken))
        real = torch.from_numpy(schedule.weights[:active, step] > 0).to(self._params.device)
        weights = by_predictions(real, self._task.counts(flat).view(real.shape))
        return tuple(part.view(*real.shape, *part.shape[1:]) for part in flat), weights

    def _plan(self, size: int, round_index: int, client: int) -> list[Indices]:
        draws = self._draws.generator(self.seed, "batches", round_index, client)
        return batches(size, self.local, draws)

    def _try(self, example: Samples) -> None:
        """Runs one forward and backward pass to check that torch can vectorise them, and checks the loss."""
        self._losses.train()
        places = np.zeros((2, 1), np.int64)
        matrix = torch.zeros(2, self.layout.size, device=self._params.device)
        try:
            batch = take_each([example, example], places)
            self._backward(matrix, batch, torch.ones(()), self.layout.layers)
        except InputError:
            raise
        except Exception as error:  # raised by torch, or by a model that needs plain tensors
            raise CannotVectorizeError(reason_of(error, self._task.model)) from error
        self._check_mean(example)

    @torch.no_grad()
    def _check_mean(self, example: Samples) -> None:
        """Checks that the loss of a batch is the mean over its samples' predictions."""
        batch = self._task.trim(example.take(np.arange(min(len(example), TRIED))))
        counts = self._task.counts(batch)
        with PlainAttention():
            whole = float(self._task.loss(batch))
            mean = float((self._task.losses(batch) * counts).sum() / counts.sum().clamp(min=1))
        if isfinite(whole) and isfinite(mean) and not isclose(whole, mean, rel_tol=1e-3, abs_tol=1e-5):
            raise CannotVectorizeError(
                f"its loss is no mean over predictions: it is {whole:.6g} of a batch and {mean:.6g} of its "
                f"samples. Have it give a number for each sample, or give counts"
            )

    def _gradients(
        self, matrix: Tensor, grads: Tensor, batch: Batch, weights: Tensor, layers: Sequence[Layer]
    ) -> Tensor:
        """Writes the clients' gradients of these layers into `grads` [K, P]; returns their losses [K]."""
        losses, found = self._backward(matrix, batch, weights, layers)
        for layer, part in zip(layers, found, strict=True):
            self._view(grads, layer).copy_(part)
        return losses.double()

    def _backward(
        self, matrix: Tensor, batch: Batch, weights: Tensor, layers: Sequence[Layer]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the losses [K], and for each of these layers the K clients' gradients."""
        leaves = {layer.name: self._view(matrix, layer) for layer in self.layout.layers}
        wanted = [leaves[layer.name].requires_grad_() for layer in layers]
        # The plain attention kernel is the only one that can be vectorised.
        with PlainAttention():
            losses = (self._each_loss(leaves, *batch) * weights).sum(dim=1)
        if not losses.requires_grad:  # the losses depend on none of these layers
            return losses.detach(), tuple(torch.zeros_like(leaf) for leaf in wanted)
        found = torch.autograd.grad(losses.sum(), wanted, materialize_grads=True)
        return losses.detach(), found

    def _view(self, matrix: Tensor, layer: Layer) -> Tensor:
        """Returns one layer of K rows as a view [K, *shape]."""
        return matrix[:, layer.offset : layer.offset + layer.numel].view(len(matrix), *layer.shape)

    def _adjust_(
        self,
        grads: Tensor,
        matrix: Tensor,
        start: Tensor,
        corrections: Tensor | None,
        frozen: Frozen | None,
    ) -> None:
        """Adds the proximal term and the corrections to the gradients, and clips each client's gradient."""
        if self.local.proximal_mu:
            mu = self.local.proximal_mu
            grads.add_(matrix, alpha=mu).sub_(start, alpha=mu)
        if corrections is not None:
            grads.add_(corrections[: len(grads)])
            if frozen is not None:
                frozen.clear_(grads)
        if self.local.clip_norm is not None:
            norms = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
            grads.mul_((self.local.clip_norm / (norms + 1e-6)).clamp(max=1.0))

    def _losses_of(self, params: dict[str, Tensor], *batch: Tensor) -> Tensor:
        named = {f"model.{name}": param for name, param in params.items()}
        found: Tensor = functional_call(self._losses, named, batch)
        return found


class _Losses(nn.Module):
    """A module that returns a task's losses of single samples; `functional_call` replaces its parameters."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.model = task.model
        self._task = task

    def forward(self, *batch: Tensor) -> Tensor:
        return self._task.losses(batch)
