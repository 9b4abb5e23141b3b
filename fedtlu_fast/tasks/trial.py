"""Tries a user's loss on a batch before round 1, so that an error in it is reported as the loss's error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isclose

import numpy as np
import torch
from torch import nn

from fedtlu_fast.data.population import Batch, Samples
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.tasks.supervised import SupervisedTask


@torch.no_grad()
def try_loss(task: SupervisedTask, samples: Samples, size: int) -> None:
    """Tests a task on one batch and its two halves; the model is not changed.

    A loss that is a sum over the batch is refused, because its gradients would grow with the batch's size and
    tests would report sums. It is recognised by the halves: a sum over the batch is the sum of their losses,
    and a mean is between them.

    Args:
        task: the user's task.
        samples: any samples of the data.
        size: number of samples in the batch; the batch has at least 2 if there are so many.

    Raises:
        InputError: the model, the loss or a metric cannot be called with the batch, or the loss is a sum.
    """
    with _in_tests(task.model), torch_seeded(0, "trial of the loss"):
        batch = samples.take(np.arange(min(max(size, 2), len(samples))))
        total, count = float(task.measured(batch).loss), len(batch[0])
        rows = slice(count // 2), slice(count // 2, None)
        halves = [tuple(part[own] for part in batch) for own in rows]
        losses = [_loss(task, half) for half in halves if count > 1]
    if None in losses or not losses:
        return
    one, other = (loss or 0.0 for loss in losses)
    # If the halves' losses differ in sign, or one of them is almost 0, their sum could be a mean as well.
    if min(one / (total or 1.0), other / (total or 1.0)) > 1e-3 and isclose(total, one + other, rel_tol=1e-4):
        raise InputError(
            "loss",
            task.loss_name,
            f"the mean over a batch, or a number for each sample; it is a sum: {total:.6g} of {count} "
            f"samples, {one:.6g} and {other:.6g} of their halves",
            "Give it reduction='mean' or reduction='none', or divide by the number of samples.",
        )


def _loss(task: SupervisedTask, batch: Batch) -> float | None:
    """Returns the loss of a part of a batch; None if it raises an error, as it may for few samples."""
    try:
        return float(task.measured(batch).loss)
    except Exception:
        return None


@contextmanager
def _in_tests(model: nn.Module) -> Iterator[None]:
    """Puts the model in evaluation mode inside the context, and restores its modules' modes afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
