"""The checks of a task."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.data.datasets import Datasets
from fedtlu_fast.data.form import flattened
from fedtlu_fast.data.population import Batch, example_samples
from fedtlu_fast.errors import FedtluError, InputError, cause
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.tasks.metrics import LOSS, PERPLEXITY, Evaluation
from fedtlu_fast.tasks.supervised import SupervisedTask, fitted
from fedtlu_fast.tasks.task import Task
from fedtlu_fast.testing.common import ConformanceError, must, same

SAMPLES = 8
"""Samples of the data's test that a check uses at most."""
Found = TypeVar("Found")


def check_task(task: Task, samples: Datasets | Any) -> None:
    """Checks a task on a few samples; the task itself stays as it is.

    The check tests these promises:

    * ``losses`` gives a number for each sample, ``counts`` its predictions, and ``loss`` is the mean of the
      losses, weighted by the counts. They do not depend on the batch in which a sample lies.
    * ``trim`` keeps samples, predictions and losses.
    * ``evaluate`` measures every figure, and its results agree with the losses and between batch sizes.
    * A gradient reaches every trainable parameter.
    * Nothing that the task is given is changed, and no parameter or buffer in eval mode.
    * The same call gives the same bits, in training with the same seed.
    * An empty batch has no losses and no counts, or is refused; a single sample is a batch.
    * NaN in one sample leaves the losses of the others as they are, and NaN in the parameters makes the loss
      NaN or infinite; neither raises.
    * The task survives pickling, for which its class and functions are found again by their names.

    A model without like blocks is no error, since its blocks are all unique. A warning says so.

    Args:
        task: any `Task`, such as a `SupervisedTask`.
        samples: a batch of two or more samples in the form in which the task gets it, or the data, of whose
            test the first 8 samples are used.

    Raises:
        ConformanceError: The task breaks a promise.
        InputError: There are fewer than two samples, or the data do not fit the task.
    """
    own, batch = _prepared(copy.deepcopy(task), samples)
    for each in (_losses, _trim, _evaluation, _gradients, _bits_again, _small, _nan, _pickled):
        with torch_seeded(0, "conformance task"):
            own.model.eval()
            before, given = _state(own), [part.clone() for part in batch]
            each(own, batch)
            what = each.__name__.strip("_").replace("_", " ")
            must(all(map(_equal, batch, given)), f"{what}: the task changed the batch")
            must(_unchanged(before, _state(own)), f"{what}: the task changed parameters or buffers")
    layout = ParameterLayout.from_module(own.model)
    if not layout.groups:
        warnings.warn(
            "the model has no like blocks: all of its blocks are unique, and a selector cannot choose among "
            "them; name blocks in selection.blocks, or choose granularity='module' or 'tensor'",
            stacklevel=2,
        )


def _prepared(task: Task, samples: Datasets | Any) -> tuple[Task, Batch]:
    """The task for the samples' form, and a batch of them."""
    if isinstance(samples, Datasets):
        task, population = fitted(task, samples)
        held = example_samples(population)
        batch = held.take(np.arange(min(len(held), SAMPLES)))
    else:
        batch, form = flattened(samples)
        if isinstance(task, SupervisedTask) and task.form is None:
            task = task.of_form(form)
    if len(batch[0]) < 2:
        raise InputError("samples", f"{len(batch[0])} samples", "two or more")
    return task, batch


def _losses(task: Task, batch: Batch) -> None:
    size = len(batch[0])
    with torch.no_grad():
        loss = _called("loss", lambda: task.loss(batch))
        losses = _called("losses", lambda: task.losses(batch))
        counts = _called("counts", lambda: task.counts(batch))
        right = isinstance(losses, Tensor) and losses.shape == (size,) and losses.is_floating_point()
        must(right, f"losses has to give {size} numbers, one for each sample; it gives {_shown(losses)}")
        right = isinstance(counts, Tensor) and counts.shape == (size,) and counts.dtype == torch.int64
        must(right, f"counts has to give {size} numbers of int64; it gives {_shown(counts)}")
        must(bool((counts >= 0).all()), "counts has to be 0 or more for each sample")
        right = isinstance(loss, Tensor) and loss.shape == () and loss.is_floating_point()
        must(right, f"loss has to give a scalar; it gives {_shown(loss)}")
        must(bool(loss.isfinite()), f"the loss of the samples is {float(loss)}")
        mean = float((losses * counts).sum() / counts.sum().clamp(min=1))
        close = _near(float(loss), mean)
        must(close, f"loss is {float(loss):.6g}, and the mean of losses by counts is {mean:.6g}")
        for at in range(size):
            alone = tuple(part[at : at + 1] for part in batch)
            one = _called("losses of one sample", lambda alone=alone: task.losses(alone))  # type: ignore[misc]
            near = one.shape == (1,) and _near(one[0], losses[at])
            must(near, f"sample {at} has a loss of {_shown(one)} alone and of {losses[at]:.6g} in the batch")
            must(int(task.counts(alone)) == int(counts[at]), f"sample {at} has other counts alone")


def _trim(task: Task, batch: Batch) -> None:
    cut = _called("trim", lambda: task.trim(batch))
    right = isinstance(cut, tuple) and len(cut) == len(batch)
    must(right and len(cut[0]) == len(batch[0]), "trim has to return a batch of the same samples")
    must(_equal(task.counts(cut), task.counts(batch)), "trim changes the counts of predictions")
    with torch.no_grad():
        near = _near(task.losses(cut), task.losses(batch))
    must(near, "trim changes the losses beyond rounding")


def _evaluation(task: Task, batch: Batch) -> None:
    size = len(batch[0])
    whole = _called("evaluate", lambda: task.evaluate(batch, size))
    must(isinstance(whole, Evaluation), f"evaluate has to return an Evaluation; it returns {_shown(whole)}")
    names = {figure.name for figure in task.figures} - {LOSS.name, PERPLEXITY.name}
    missing = sorted(names - whole.totals.keys())
    must(not missing, f"evaluate does not measure {', '.join(missing)}, which figures name")
    must(_equal(whole.counts, task.counts(batch).cpu()), "evaluate has other counts than counts()")
    with torch.no_grad():
        loss = float(task.loss(batch))
    must(_near(float(whole.loss), loss), f"evaluate finds {whole.loss:.6g}, loss() {loss:.6g}")
    for step in {1, size // 2, size - 1}:
        parts = _called("evaluate", lambda step=step: task.evaluate(batch, step))  # type: ignore[misc]
        what = f"evaluate with {step} samples at a time"
        must(_equal(parts.counts, whole.counts), f"{what} has other counts than with all of them")
        near = _near(parts.loss, whole.loss)
        must(near, f"{what} finds a loss of {parts.loss:.6g}, with all of them {whole.loss:.6g}")
        if task.by_sample:
            near = _near(parts.losses, whole.losses)
            must(near, f"{what} finds other losses of samples, although by_sample is True")
        for name, value in whole.means.items():
            near = _near(parts.means[name], value)
            must(near, f"{what} finds {name} {parts.means[name]:.6g}, with all of them {value:.6g}")


def _gradients(task: Task, batch: Batch) -> None:
    trained = {name: param for name, param in task.model.named_parameters() if param.requires_grad}
    must(bool(trained), "the model has no trainable parameter")
    loss = _called("loss", lambda: task.loss(batch))
    must(loss.requires_grad, "the loss has no gradient; look for detach() and torch.no_grad()")
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    without = [name for name, grad in zip(trained, found, strict=True) if grad is None]
    must(not without, f"no gradient reaches {', '.join(without)}; freeze it with requires_grad_(False)")
    wild = [name for name, grad in zip(trained, found, strict=True) if not bool(grad.isfinite().all())]
    must(not wild, f"the gradient of {', '.join(wild)} is not finite")
    losses = task.losses(batch)
    must(losses.requires_grad, "losses has no gradient; look for detach() and torch.no_grad()")


def _bits_again(task: Task, batch: Batch) -> None:
    size = len(batch[0])
    with torch.no_grad():
        must(same(task.loss(batch), task.loss(batch)), "the second time the loss in eval mode is another")
    one, other = task.evaluate(batch, size), task.evaluate(batch, size)
    equal = same(one.losses, other.losses) and all(
        _equal(one.totals[name], other.totals[name]) for name in one.totals
    )
    must(equal, "the second time evaluate finds something else")
    buffers = {name: own.clone() for name, own in task.model.named_buffers()}
    found = []
    for _ in range(2):
        task.model.train()
        with torch_seeded(1, "conformance task"), torch.no_grad():
            found.append(task.loss(batch))
        task.model.eval()
        for name, own in task.model.named_buffers():  # BatchNorm counts in training
            own.copy_(buffers[name])
    must(same(*found), "the second time the loss in training is another, although the seed is the same")


def _small(task: Task, batch: Batch) -> None:
    nothing = tuple(part[:0] for part in batch)
    with torch.no_grad():
        for name in ("losses", "counts"):
            try:
                found = getattr(task, name)(nothing)
            except Exception:
                continue
            must(tuple(found.shape) == (0,), f"{name} of no samples has to be [0]; it is {_shown(found)}")
    one = tuple(part[:1] for part in batch)
    found = _called("evaluate of one sample", lambda: task.evaluate(one, 1))
    must(len(found.losses) == 1, "evaluate of one sample has to give one loss")


def _nan(task: Task, batch: Batch) -> None:
    with torch.no_grad():
        rest = task.losses(batch)[1:]
        spoilt = tuple(part.clone() for part in batch)
        floating = [part for part in spoilt if part.is_floating_point()]
        for part in floating:
            part[0] = torch.nan
        if floating:
            found = _called("losses with NaN in a sample", lambda: task.losses(spoilt))
            must(_near(found[1:], rest), "NaN in one sample changes the losses of others")
    broken = copy.deepcopy(task)
    with torch.no_grad():
        for param in broken.model.parameters():
            param.fill_(torch.nan)
        loss = _called("loss with NaN in the parameters", lambda: broken.loss(batch))
        must(not bool(loss.isfinite()), "the loss is finite although the parameters are NaN")
    test = _called("evaluate with NaN in the parameters", lambda: broken.evaluate(batch, len(batch[0])))
    must(not bool(test.loss.isfinite()), "evaluate finds a finite loss although the parameters are NaN")


def _pickled(task: Task, batch: Batch) -> None:
    try:
        again = pickle.loads(pickle.dumps(task))  # noqa: S301 (bytes that were made one call before)
    except Exception as error:
        raise ConformanceError(f"it cannot be pickled, as processes and Ray need: {cause(error)}") from error
    must(type(again) is type(task), "pickling gives an object of another class")
    with torch.no_grad():
        equal = same(again.loss(batch), task.loss(batch))
    must(equal, "the task has another loss after pickling")


def _called(what: str, call: Callable[[], Found]) -> Found:
    """What a call gives; an error in it is a broken promise."""
    try:
        return call()
    except ConformanceError:
        raise
    except Exception as error:
        text = str(error) if isinstance(error, FedtluError) else cause(error)
        raise ConformanceError(f"{what} raised {text}") from error


def _shown(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _state(task: Task) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in task.model.state_dict().items()}


def _unchanged(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return before.keys() == after.keys() and all(_equal(after[name], own) for name, own in before.items())


def _near(one: Tensor | float, other: Tensor | float) -> bool:
    """Whether two numbers or vectors differ by no more than rounding in another batch explains."""
    found, expected = torch.as_tensor(one).double(), torch.as_tensor(other).double()
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-5)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
