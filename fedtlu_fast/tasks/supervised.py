"""Makes a task of the user's own model, loss and metrics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from fedtlu_fast.data.datasets import Datasets
from fedtlu_fast.data.form import Form, form_of_columns, rebuilt
from fedtlu_fast.data.listed import Collate
from fedtlu_fast.data.population import Batch, Pool, Population, Samples, count
from fedtlu_fast.errors import InputError, check_kind, kind_of
from fedtlu_fast.randomness import SeededWhereDrawn
from fedtlu_fast.tasks.called import Called, Forward, Function, blaming, ignored_label, name_of, unreduced
from fedtlu_fast.tasks.metrics import LOSS, Evaluation
from fedtlu_fast.tasks.own_metrics import Metric, figures_of
from fedtlu_fast.tasks.task import Task
from fedtlu_fast.unchanged import unchanged


class SupervisedTask:
    """The user's own model and loss; satisfies `Task`.

    A loss or metric is called in one of two forms. The names of its first two parameters say which:

    * ``loss(model, batch)``: the first parameter is named model, module, net or network, or is annotated as a
      `torch.nn.Module`, or the second is named batch or samples. The batch has the form of the data: a
      tensor, a tuple or a dictionary.
    * ``loss(outputs, targets)``, like `torch.nn.functional.cross_entropy` and `torch.nn.CrossEntropyLoss()`:
    the
      first parameter is named output, outputs, input, logits, pred, prediction or similarly, or the second is
      named target, targets, label, labels, y or similarly. Targets are the last entry of a tuple, or the
      entry ``labels``, ``label``, ``targets``, ``target`` or ``y`` of a dictionary. The model is called with
      all other entries, by position or by name; outputs are its result, or the result's ``logits``.

    For any other function an error says how to rename its parameters.

    A loss returns the losses of the B samples, [B], or a scalar, which is their mean over predictions. A loss
    that returns [B] is often faster if many clients are trained together: with a scalar, losses of single
    samples are computed by calls with batches of one sample. For PyTorch's own losses they are derived
    directly.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Function,
        metrics: Mapping[str, Function | Metric] | None = None,
        headline: str | None = None,
        collate: Collate | None = None,
        counts: Callable[[Any], Tensor] | None = None,
    ) -> None:
        """Checks how the functions are called; the model is not run.

        Args:
            model: any module with at least one trainable parameter.
            loss: the loss, as described above.
            metrics: functions whose higher values are better, or `Metric` objects, by name. They are measured
                in every test and reported as ``test_<name>`` and ``local_<name>``. A scalar counts as the
                mean over the batch's predictions.
            headline: the metric by which tables and figures compare runs, or ``loss``, or ``perplexity``,
                which is exp(loss) of a loss in nats; None: the first metric, or the loss if there is none.
            collate: makes a batch from a list of samples; see `Datasets`.
            counts: returns [B] integers for a batch, the number of predictions of each sample, by which means
                are weighted. None: for PyTorch's losses on labels the number of labels that are not ignored,
                otherwise 1.

        Raises:
            InputError: the model is not a module, a function cannot be called, or a metric has a reserved
                name.
        """
        check_kind("model", model, nn.Module, "a torch.nn.Module, not its class or its parameters")
        called = Called.of(loss, "loss")
        if counts is not None and not callable(counts):
            raise InputError(
                "counts", counts, "a function of a batch, which returns a number for each sample"
            )
        each = unreduced(loss, "loss") if called.kind == "outputs" else None
        self._loss: Callable[[Forward], Any] = called
        self._each = None if each is None else Called(each, "outputs")
        self._ignored = None if each is None else ignored_label(loss)
        self._counts, self.loss_name = counts, name_of(loss)
        self._set(model, metrics or {}, headline, collate)

    def _set(
        self,
        model: nn.Module,
        metrics: Mapping[str, Function | Metric],
        headline: str | None,
        collate: Collate | None,
    ) -> None:
        check_kind("metrics", metrics, Mapping, "a dictionary from names to functions")
        self.model, self.collate, self.form = model, collate, cast("Form | None", None)
        known = {name: one if isinstance(one, Metric) else Metric(one) for name, one in metrics.items()}
        self._metrics = {name: Called.of(one.function, f"metrics[{name!r}]") for name, one in known.items()}
        self.figures = figures_of(known, headline)
        self._seeded = SeededWhereDrawn()

    def __repr__(self) -> str:
        names = ", ".join(figure.name for figure in self.figures)
        return f"{type(self).__name__}({type(self.model).__name__}, {names or LOSS.name})"

    @property
    def by_sample(self) -> bool:
        """See `Task`. It is true only for PyTorch's own losses without metrics."""
        return self._each is not None and not self._metrics

    def of_form(self, form: Form) -> Self:
        """Returns the same task for batches of this form (see `data.form`)."""
        other = copy.copy(self)
        other.form = form
        return other

    def loss(self, batch: Batch) -> Tensor:
        """See `Task`."""
        found = self._called(self._forward(batch), len(batch[0]))
        if not found.ndim:
            return self._without_ignored(found, batch)
        counts = self.counts(batch)
        return (found * counts).sum() / counts.sum().clamp(min=1)

    def losses(self, batch: Batch) -> Tensor:
        """See `Task`. If the loss is a scalar, it is called with batches of one sample.

        These calls are vectorised by `torch.func.vmap`, or made one by one if it cannot.
        """
        forward, size = self._forward(batch), len(batch[0])
        found = self._derived(forward, batch)
        if found is None:
            found = self._called(forward, size)
        if found.ndim:
            return found

        def alone(*parts: Tensor) -> Tensor:
            one = self._called(self._forward(tuple(part.unsqueeze(0) for part in parts)), 1)
            return one.reshape(())

        try:
            together: Tensor = vmap(alone)(*batch)
            return together
        except RuntimeError:
            return torch.stack([alone(*(part[at] for part in batch)) for at in range(size)])

    def counts(self, batch: Batch) -> Tensor:
        """See `Task`."""
        value = rebuilt(batch, self._form_of(batch))
        if self._counts is not None:
            found = self._counts(value)
            if not isinstance(found, Tensor) or found.shape != (len(batch[0]),):
                raise InputError(
                    "counts", found, f"a tensor of shape ({len(batch[0])},), one number a sample"
                )
            return found
        labels = None if self._ignored is None else self._forward(batch).targets
        if isinstance(labels, Tensor) and not labels.is_floating_point():
            return labels.ne(cast("int", self._ignored)).reshape(len(labels), -1).sum(dim=1)
        return torch.ones(len(batch[0]), dtype=torch.int64, device=batch[0].device)

    def trim(self, batch: Batch) -> Batch:
        """See `Task.trim`. The collate function makes batches no longer than needed, so nothing is cut."""
        return batch

    @torch.no_grad()
    def evaluate(self, samples: Pool, batch_size: int) -> Evaluation:
        """See `Task`. A scalar loss or metric counts as the value of every sample of its batch."""
        self.model.eval()
        held = Samples(samples, np.arange(count(samples)))
        found = []
        with self._seeded(0, "test", 0, 0):  # a data set's random draws must be the same in every test
            for first in range(0, len(held), batch_size):
                found.append(self.measured(held.take(np.arange(first, min(first + batch_size, len(held))))))
        return Evaluation.joined(found)

    def measured(self, batch: Batch) -> Evaluation:
        """Measures loss and metrics of one batch; a scalar counts as the value of each of its samples.

        Raises:
            InputError: the model, the loss or a metric cannot be called with the batch; the field says which.
        """
        forward, size = self._forward(batch), len(batch[0])
        if not (isinstance(self._loss, Called) and self._loss.kind == "model"):
            with blaming("model", type(self.model).__name__, forward.batch):
                forward.outputs  # noqa: B018 (kept for what follows)
        who = ("loss", self.loss_name) if self._counts is None else ("counts", name_of(self._counts))
        with blaming(*who, forward.batch):
            counts, totals = self.counts(batch).cpu(), dict[str, Tensor]()
        with blaming("loss", self.loss_name, forward.batch):
            derived = self._derived(forward, batch)
            losses = _spread(self._called(forward, size) if derived is None else derived, size)
        seen = self._seen_by_metrics(forward, batch)
        for name, metric in self._metrics.items():
            field, own = f"metrics[{name!r}]", name_of(metric.function)
            with blaming(field, own, forward.batch), unchanged(field, own, "", seen):
                totals[name] = _spread(_tensor(metric(forward), size, field), size) * counts
        return Evaluation(losses, counts, totals)

    def _seen_by_metrics(self, forward: Forward, batch: Batch) -> dict[str, Tensor | None]:
        """Returns the tensors that a metric receives, and that other metrics and batches read too."""
        found: dict[str, Tensor | None] = {f"batch[{at}]": part for at, part in enumerate(batch)}
        found |= {f"model.{name}": one for name, one in self.model.named_parameters()}
        known = vars(forward).get("outputs")  # computed for the loss, or not at all
        return found | {"outputs": known} if isinstance(known, Tensor) else found

    def _form_of(self, batch: Batch) -> Form:
        return form_of_columns(len(batch)) if self.form is None else self.form

    def _forward(self, batch: Batch) -> Forward:
        return Forward(self.model, rebuilt(batch, self._form_of(batch)))

    def _called(self, forward: Forward, size: int) -> Tensor:
        """Returns the result of the user's loss: [B] or a scalar."""
        found = self._loss(forward)
        if not isinstance(found, Tensor):
            raise InputError("loss", found, "a tensor, of one number or of one number a sample")
        return _tensor(found, size, "loss")

    def _without_ignored(self, mean: Tensor, batch: Batch) -> Tensor:
        """Returns a mean loss as it is, or 0 if all labels are ignored, where PyTorch returns NaN."""
        labels = None if self._ignored is None else self._forward(batch).targets
        if not isinstance(labels, Tensor) or labels.is_floating_point():
            return mean
        return torch.where(labels.ne(cast("int", self._ignored)).any(), mean, 0.0)

    def _derived(self, forward: Forward, batch: Batch) -> Tensor | None:
        """Returns [B], the losses of single samples for a loss of PyTorch; None for other losses."""
        if self._each is None:
            return None
        each = self._each(forward)
        rows = each.reshape(len(batch[0]), -1)
        if self._ignored is None:
            return cast("Tensor", rows.mean(dim=1))
        return cast("Tensor", rows.sum(dim=1) / self.counts(batch).clamp(min=1))


def fitted(task: Task, data: Datasets) -> tuple[Task, Population]:
    """Fits a task and data to each other: the task's collate function, if it has one, makes the batches.

    Args:
        task: any task; a `SupervisedTask` learns the form of the batches.
        data: the user's own data.

    Raises:
        InputError: see `Datasets.population`.
    """
    if not isinstance(task, SupervisedTask):
        return task, data.population()
    population = data.population(task.collate)
    return task.of_form(population.form), population


def _tensor(value: Any, size: int, field: str) -> Tensor:
    """Returns the result of a loss or metric as a tensor, after checking that it is a scalar or [B]."""
    found = value if isinstance(value, Tensor) else torch.as_tensor(value)
    if found.is_complex():
        raise InputError(field, kind_of(found), "real numbers")
    if found.ndim and found.shape != (size,):
        expected = f"a scalar, or one number for each of the {size} samples"
        raise InputError(field, f"a tensor of shape {tuple(found.shape)}", expected)
    return found


def _spread(found: Tensor, size: int) -> Tensor:
    """Returns [B] float64 on the CPU; a scalar is repeated."""
    return found.detach().double().cpu().expand(size)
