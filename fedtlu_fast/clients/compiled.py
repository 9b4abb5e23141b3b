"""Local training of multi-layer perceptrons in C++: the arithmetic of `training.LocalTrainer`, compiled.

For a model of a few thousand numbers, calling a tensor library costs far more than the arithmetic. The
kernel (``csrc/perceptron/perceptron.h``) trains clients one after another without a tensor library and adds
up their changes. Results agree with `LocalTrainer` to float32 rounding, not to the bit; they do not depend on
which clients share a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtlu_fast.clients.batches import batches
from fedtlu_fast.clients.local import Local
from fedtlu_fast.clients.optimizer import AdamW, Sgd
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
from fedtlu_fast.data.population import Batch, Indices, Pool, Samples, whole
from fedtlu_fast.errors import FedtluError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.randomness import Draws
from fedtlu_fast.tasks.classification import Classification
from fedtlu_fast.tasks.task import Task


class CannotCompileError(FedtluError):
    """There is no compiled training for this model or these data; the message gives the reason."""


class CompiledTrainer:
    """Trains clients one after another in C++; see `GroupTrainer`."""

    shows_vectors = False

    def __init__(
        self, task: Task, layout: ParameterLayout, local: Local, seed: int, example: Samples
    ) -> None:
        """Checks that the kernel can train this model, and allocates its vectors.

        Args:
            task: the model and its loss.
            layout: the model's layout.
            local: optimizer, steps, clipping, proximal term.
            seed: the run's seed.
            example: any samples of the task's kind.

        Raises:
            CannotCompileError: the model is not ``Linear, ReLU, ..., Linear`` with biases, all of it
                trained, on the CPU; the samples are not float32; the optimizer is neither `Sgd` nor `AdamW`;
                or the extension was not built.
        """
        try:
            from fedtlu_fast.ops.native import extension
        except ImportError as error:
            raise CannotCompileError(str(error)) from error
        optimizer = local.optimizer
        if type(optimizer) not in (Sgd, AdamW):
            raise CannotCompileError("its optimizer is neither sgd nor adamw")
        assert isinstance(optimizer, Sgd | AdamW)
        self._kernel = extension.train_perceptrons
        self._layers = _linears(task, layout)
        self._steps: dict[str, Any] = {
            "adamw": isinstance(optimizer, AdamW),
            "lr": optimizer.lr,
            "momentum": optimizer.momentum if isinstance(optimizer, Sgd) else 0.0,
            "weight_decay": optimizer.weight_decay,
            "proximal": local.proximal_mu,
            "clip": local.clip_norm or 0.0,
        }
        self.local, self.seed = local, seed
        self._draws = Draws()
        self._change = torch.empty(layout.size)
        self._own = torch.empty(layout.size)
        _check_pool(example.pool, int(self._layers[0]))

    @staticmethod
    def supports(want: Want, clients_per_batch: int = 1) -> str | None:
        """See `Trainer`."""
        reasons: dict[Want, str] = {
            "blocks": "the compiled engine trains every layer",
            "correction": "the compiled engine adds nothing to its gradients",
            "second model": SECOND_MODEL,
        }
        if clients_per_batch > 1:
            reasons |= {"each vector": ONE_SUM, "own model": OWN_MODEL}
        return reasons.get(want)

    def train_one(self, start: ClientStart, round_index: int, client: int) -> ClientUpdate:
        """See `Trainer`."""
        return self.train(start.params, start.buffers, start.samples, round_index, client)

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
        samples = [start.samples for start in starts]
        return self.train_sum(starts[0].params, samples, round_index, clients, largest)

    def train(
        self, params: Tensor, buffers: Tensor, samples: Samples, round_index: int, client: int
    ) -> ClientUpdate:
        """Trains one client and returns its update; see `LocalTrainer.train`."""
        plan = self._plan(len(samples), round_index, client)
        found = self._train(params, [samples], [plan], self._own)
        return ClientUpdate(
            params=self._own,
            buffers=buffers,
            samples=len(samples),
            steps=len(plan),
            loss=found.losses[0],
        )

    def train_sum(
        self,
        params: Tensor,
        samples: Sequence[Samples],
        round_index: int,
        clients: Sequence[int],
        largest: float = inf,
    ) -> ClientSum:
        """Trains K clients from the same parameters and returns the sum of their changes.

        Args:
            params: [P] float32, the global parameters; not changed.
            samples: [K], each client's training samples.
            round_index: the round. All draws depend on seed, round and client number only.
            clients: [K], the clients' numbers.
            largest: upper limit of a client's weight, which is otherwise its number of samples.

        Returns:
            The sum; the next call overwrites its `change`.
        """
        plans = [self._plan(len(held), round_index, k) for held, k in zip(samples, clients, strict=True)]
        return self._train(params, samples, plans, None, largest)

    def _plan(self, size: int, round_index: int, client: int) -> list[Indices]:
        draws = self._draws.generator(self.seed, "batches", round_index, client)
        return batches(size, self.local, draws)

    def _train(
        self,
        params: Tensor,
        samples: Sequence[Samples],
        plans: Sequence[Sequence[Indices]],
        own: Tensor | None,
        largest: float = inf,
    ) -> ClientSum:
        pool, rows = _joined(samples, [np.concatenate(plan) for plan in plans])
        features, labels = pool[0], pool[1].numpy()[rows]
        if not features.is_contiguous():  # the kernel reads rows: copies the drawn ones, not the whole pool
            features, rows = features[torch.from_numpy(rows)], np.arange(len(rows))
        held = [len(own) for own in samples]
        losses, finite = self._kernel(
            params.numpy(),
            self._layers,
            self._steps,
            features.reshape(-1).numpy(),
            labels,
            rows,
            _ends([len(batch) for plan in plans for batch in plan]),
            _ends([len(plan) for plan in plans]),
            np.minimum(np.array(held, np.float64), largest),
            self._change.numpy(),
            None if own is None else own.numpy(),
        )
        weights = [min(own, largest) for own in held]
        return ClientSum(self._change, held, losses.tolist(), finite.tolist(), weights)


def _joined(samples: Sequence[Samples], places: Sequence[Indices]) -> tuple[Batch, Indices]:
    """Returns one pool for all clients, and the rows that their steps take from it, client after client."""
    pools = [whole(held.pool) for held in samples]
    taken = [held.rows[own] for held, own in zip(samples, places, strict=True)]
    if len(pools) == 1:
        return pools[0], taken[0]
    if all(pool is pools[0] for pool in pools):
        return pools[0], np.concatenate(taken)
    starts = _ends([len(pool[0]) for pool in pools])
    taken = [rows + start for rows, start in zip(taken, starts, strict=False)]
    return tuple(torch.cat(parts) for parts in zip(*pools, strict=True)), np.concatenate(taken)


def _ends(lengths: Sequence[int]) -> Indices:
    """Returns the places where parts of these lengths begin, and then the place where the last one ends."""
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends


def _linears(task: Task, layout: ParameterLayout) -> NDArray[np.int64]:
    """Returns four numbers for each linear layer: inputs, outputs, offsets of its weight and its bias."""
    model = task.model
    if not isinstance(task, Classification) or type(model) is not nn.Sequential:
        raise CannotCompileError("it is not a multi-layer perceptron")
    offsets = {layer.name: layer.offset for layer in layout.layers}
    numbers: list[int] = []
    for index, (name, module) in enumerate(model.named_children()):
        if type(module) is not (nn.ReLU if index % 2 else nn.Linear):
            raise CannotCompileError(f"layer {name} is {type(module).__name__}, not Linear, ReLU in turn")
        if isinstance(module, nn.Linear):
            weight, bias = offsets.get(f"{name}.weight"), offsets.get(f"{name}.bias")
            if weight is None or bias is None:
                raise CannotCompileError(f"layer {name} has no bias, or is not trained")
            numbers += [module.in_features, module.out_features, weight, bias]
    kinds = {(param.dtype, param.device.type) for param in model.parameters()}
    if kinds != {(torch.float32, "cpu")} or not isinstance(model[-1], nn.Linear):
        raise CannotCompileError("it is not float32 on the CPU, or does not end with Linear")
    return np.array(numbers, np.int64)


def _check_pool(pool: Pool, inputs: int) -> None:
    if not isinstance(pool, tuple):
        raise CannotCompileError("its samples are not in memory as tensors")
    features, labels = pool
    if features.dtype != torch.float32 or features.shape[1:] != (inputs,) or labels.dtype != torch.int64:
        raise CannotCompileError(f"its samples are not {inputs} float32 numbers and an int64 label")
