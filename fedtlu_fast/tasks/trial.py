"""Tries a user's model, loss and metrics before round 1, so that their errors are reported as theirs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import isclose, isfinite

import numpy as np
import torch
from torch import Tensor, nn

from fedtlu_fast.data.population import Batch, Pool, Samples, count
from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.memory import is_out_of_memory
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.tasks.metrics import Evaluation
from fedtlu_fast.tasks.supervised import SupervisedTask
from fedtlu_fast.tasks.task import Task

logger = logging.getLogger("fedtlu_fast")

TRIED = 16
"""Samples of the test that figures are tried on."""


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
        whole, count = task.measured(batch), len(batch[0])
        total = float(whole.loss)
        _check_counts(whole.counts)
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


def _check_counts(counts: Tensor) -> None:
    """Refuses counts by which means would be wrong, and no error would say so."""
    wrong = (
        counts[(counts < 0) | (counts != counts.round())]
        if counts.is_floating_point()
        else counts[counts < 0]
    )
    if len(wrong):
        expected = "whole numbers from 0 on: the number of predictions of each sample"
        raise InputError("counts", wrong[0].item(), expected, "A weight of the loss belongs into the loss.")


@torch.no_grad()
def try_model(task: Task, samples: Samples, name: str) -> None:
    """Tests a user's architecture on some samples; the model is not changed.

    Args:
        task: the task with the model.
        samples: any samples of the data.
        name: the architecture's name in the settings.

    Raises:
        InputError: the model cannot be run on the samples, or its outputs do not fit their labels.
    """
    batch = samples.take(np.arange(min(TRIED, len(samples))))
    with _in_tests(task.model), torch_seeded(0, "trial of the model"):
        try:
            task.losses(task.trim(batch))
        except InputError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            inputs = ", ".join(str(tuple(one.shape)) for one in batch[:-1] or batch)
            expected = (
                f"a model that takes inputs of shape {inputs} and returns logits for them, as many for each "
                f"prediction as its argument outputs says; it raised {cause(error)}"
            )
            raise InputError("model.architecture", name, expected) from error


@torch.no_grad()
def warn_of_batches(task: SupervisedTask, test: Pool) -> None:
    """Warns of a loss or metric whose value in tests depends on the size of their batches.

    A scalar stands for every sample of its batch. If it is no mean over the samples' predictions, such as
    one over the words of sentences without `counts`, or an F1, other batches give other figures. Such a
    scalar differs between a batch and the batch's samples one by one.

    Args:
        task: the user's.
        test: the global test, of which the first `TRIED` samples are tried.
    """
    with _in_tests(task.model), torch_seeded(0, "trial of the figures"):
        size = min(TRIED, count(test))
        batch = Samples(test, np.arange(size)).take(np.arange(size))
        rows = [tuple(part[at : at + 1] for part in batch) for at in range(size)]
        whole, each = task.measured(batch), [_measured(task, row) for row in rows]
    single = [one for one in each if one is not None]
    if len(single) < size:
        return
    other = Evaluation.joined(single)
    pairs = {f"loss ({task.loss_name})": (float(whole.loss), float(other.loss))}
    pairs |= {
        f"metrics[{name!r}]": (float(whole.means[name]), float(other.means[name])) for name in whole.means
    }
    for name, (one, two) in pairs.items():
        if isfinite(one) and isfinite(two) and not isclose(one, two, rel_tol=1e-4, abs_tol=1e-6):
            logger.warning(
                "%s depends on evaluation.batch_size: it is %.6g in a batch of %d samples, and %.6g as the "
                "mean of these samples. Return a number for each sample, [B], and where samples ask for "
                "different numbers of predictions, give these by counts=",
                name,
                one,
                size,
                two,
            )


def _loss(task: SupervisedTask, batch: Batch) -> float | None:
    """Returns the loss of a part of a batch; None if it raises an error, as it may for few samples."""
    found = _measured(task, batch)
    return None if found is None else float(found.loss)


def _measured(task: SupervisedTask, batch: Batch) -> Evaluation | None:
    """Returns the test of a part of a batch; None if it raises an error, as it may for few samples."""
    try:
        return task.measured(batch)
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
