"""Makes a task of any Hugging Face model whose output has a loss."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from fedtlu_fast.data.form import rebuilt
from fedtlu_fast.data.listed import Collate
from fedtlu_fast.data.pad import IGNORED, Pad
from fedtlu_fast.data.population import Batch
from fedtlu_fast.errors import InputError, check_kind
from fedtlu_fast.tasks.called import Forward, Function
from fedtlu_fast.tasks.metrics import PERPLEXITY
from fedtlu_fast.tasks.own_metrics import Metric
from fedtlu_fast.tasks.supervised import SupervisedTask

LABELS = "labels"
Head = Literal["causal", "language", "classifier", "other"]


class LabelledForward(Forward):
    """A forward pass of a model that receives the labels and returns its own loss."""

    @cached_property
    def result(self) -> Any:
        """The model's output for the whole batch."""
        if not isinstance(self.batch, Mapping):
            raise InputError("batch", "a tensor or a tuple", "a dictionary of tensors", "Give a collator.")
        more = {"use_cache": False} if "use_cache" in accepted(self.model) else {}
        return self.model(**self.batch, **more)

    @cached_property
    def outputs(self) -> Any:
        """The ``logits`` of the output, or the whole output if it has none."""
        logits = getattr(self.result, "logits", None)
        return self.result if logits is None else logits


class HuggingFaceTask(SupervisedTask):
    """A Hugging Face model with the loss that it computes itself; satisfies `Task`.

    The model is called with all entries of a batch, a dictionary with ``labels``, and its output must have
    ``.loss``. This holds for the heads of `transformers` (token, sequence and image classification, causal
    and masked language models, ...), and for the same models with peft's adapters (``get_peft_model``); then
    only the adapters are trained.

    Samples are dictionaries, such as the rows of a Hugging Face Dataset.
    """

    def __init__(
        self,
        model: nn.Module,
        collator: Collate | None = None,
        metrics: Mapping[str, Function | Metric] | None = None,
        headline: str | None = None,
    ) -> None:
        """Examines the class of the model; the model is not run.

        Args:
            model: the model, as described above.
            collator: makes a batch from a list of samples, such as `transformers`'
                ``DataCollatorForTokenClassification``. None: `HuggingFaceCollator`.
            metrics: see `SupervisedTask`; outputs are the model's logits, and targets are ``labels``. None:
                for classifiers of tokens, texts and images the accuracy, for other models no metric.
            headline: see `SupervisedTask`. None: the first metric; for a language model without metrics the
                perplexity.

        Raises:
            InputError: the model is not a module, or a metric cannot be called.
        """
        check_kind("model", model, nn.Module, "a model of transformers, not its class or its name")
        self._head: Head = head_of(model)
        if metrics is None:
            metrics = {"accuracy": Metric(accuracy, percent=True)} if self._head == "classifier" else {}
        if headline is None and not metrics and self._head in ("causal", "language"):
            headline = PERPLEXITY.name
        settings = getattr(model, "config", None)
        self._loss, self._each, self._ignored, self._counts = _own_loss, None, None, None
        self.loss_name = f"{type(model).__name__}'s own"
        default = HuggingFaceCollator(getattr(settings, "pad_token_id", None) or 0, accepted(model))
        self._set(model, metrics, headline, default if collator is None else collator)

    def counts(self, batch: Batch) -> Tensor:
        """See `Task`. It counts the labels that are not -100; in causal models without the first label."""
        value = rebuilt(batch, self._form_of(batch))
        labels = value.get(LABELS) if isinstance(value, Mapping) else None
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.ndim < 2:
            return torch.ones(len(batch[0]), dtype=torch.int64, device=batch[0].device)
        own = labels[:, 1:] if self._head == "causal" else labels
        return own.ne(IGNORED).flatten(1).sum(dim=1)

    def _forward(self, batch: Batch) -> Forward:
        return LabelledForward(self.model, rebuilt(batch, self._form_of(batch)))


@dataclass(frozen=True)
class HuggingFaceCollator:
    """Makes a batch from samples that are dictionaries, and fills them up to the longest one (ours).

    Entries that the model does not accept are left out. ``label`` and ``label_ids`` become ``labels``. If
    samples have ``input_ids`` and no ``attention_mask``, the batch gets one that is 0 at padding.

    Attributes:
        padding: the token id that fills up samples.
        names: names of the entries that the model accepts.
    """

    padding: int
    names: frozenset[str]

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> Any:
        """Returns one batch; see `Pad`."""
        return Pad(self.padding)([self._entries(sample) for sample in samples])

    def _entries(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(sample, Mapping):
            raise InputError("sample", sample, "a dictionary, such as a row of a Hugging Face Dataset")
        found = {LABELS if name in ("label", "label_ids") else name: own for name, own in sample.items()}
        kept = {name: own for name, own in found.items() if name in self.names}
        if "input_ids" in kept and "attention_mask" in self.names and "attention_mask" not in kept:
            kept["attention_mask"] = [1] * len(kept["input_ids"])
        return kept


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns [B], the share of each sample's labels (without -100) that have the largest logit."""
    real = targets != IGNORED
    right = (outputs.argmax(dim=-1) == targets) & real
    rows = [part.reshape(len(targets), -1).sum(dim=1) for part in (right, real)]
    return rows[0] / rows[1].clamp(min=1)


def accepted(model: nn.Module) -> frozenset[str]:
    """Returns the names of the arguments that a model accepts."""
    return frozenset(inspect.signature(_base(model).forward).parameters)


def head_of(model: nn.Module) -> Head:
    """Returns what a model of `transformers` predicts, from its class, by the library's own tables."""
    # Imported here because transformers takes seconds to import; a user with such a model has imported it.
    from transformers.models.auto import modeling_auto as known

    name = type(_base(model)).__name__

    def among(*tables: str) -> bool:
        return any(name in getattr(known, f"MODEL_FOR_{table}_MAPPING_NAMES").values() for table in tables)

    if among("CAUSAL_LM"):
        return "causal"
    if among("MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM"):
        return "language"
    classifiers = ("SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION", "IMAGE_CLASSIFICATION")
    return "classifier" if among(*classifiers) else "other"


def _base(model: nn.Module) -> nn.Module:
    """Returns the model inside peft's wrapper, or the model itself."""
    inside = getattr(model, "get_base_model", None)
    return inside() if callable(inside) else model


def _own_loss(forward: Forward) -> Tensor:
    """Returns the loss that the model itself has computed."""
    found = forward.result.loss if isinstance(forward, LabelledForward) else None
    if found is None:
        keys = sorted(map(str, forward.batch))
        if LABELS in keys:
            name = type(forward.model).__name__
            expected = f"a model whose output has a loss for batches of {', '.join(keys)}; it is None"
            fix = "Give SupervisedTask(model, loss) a loss of your own."
            raise InputError("model", name, expected, fix)
        expected = f"batches with {LABELS}, of which the model computes its loss"
        raise InputError("batch", keys, expected, "For a language model they may be the input_ids.")
    return cast("Tensor", found)
