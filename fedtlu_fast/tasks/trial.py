"""A user's loss is tried on a first batch before round 1, so that what is wrong with it is said of it."""

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
    """Tests a task on one batch and its halves; the model stays as it is.

    A loss that adds up over the batch is refused: its gradients would grow with the batch's size, and tests
    would report sums. The loss of a batch is then the sum of the losses of its halves; a mean lies between
    them.

    Args:
        task: the user's.
        samples: any of the data's.
        size: of the batch; of 2 samples at least, if there are so many.

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
    # Sums of different sign, or with a part that is nearly nothing, could be means as well.
    if min(one / (total or 1.0), other / (total or 1.0)) > 1e-3 and isclose(total, one + other, rel_tol=1e-4):
        raise InputError(
            "loss",
            task.loss_name,
            f"the mean over a batch, or a number for each sample; it is a sum: {total:.6g} of {count} "
            f"samples, {one:.6g} and {other:.6g} of their halves",
            "Give it reduction='mean' or reduction='none', or divide by the number of samples.",
        )


def _loss(task: SupervisedTask, batch: Batch) -> float | None:
    """The loss of a part of a batch; None where it raises, as it may for so few samples."""
    try:
        return float(task.measured(batch).loss)
    except Exception:
        return None


@contextmanager
def _in_tests(model: nn.Module) -> Iterator[None]:
    """Inside, the model is as in tests; afterwards its modules are in the modes that they had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
