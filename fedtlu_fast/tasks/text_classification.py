"""Text classification: predicts a label for every text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from typing_extensions import override

from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.sources.source import Source, TextSource
from fedtlu_fast.data.texts import text_samples
from fedtlu_fast.models.architecture import Architecture, Needs, of_transformers, takes_real
from fedtlu_fast.models.pretrained import load_classifier
from fedtlu_fast.parts import part
from fedtlu_fast.tasks.builder import Reading, TaskBuilder
from fedtlu_fast.tasks.classifier import Classifier
from fedtlu_fast.tasks.pretrained_check import check_reader


@dataclass(frozen=True)
class TextClassification(Classifier):
    """Classification of texts; a batch is (tokens [B, T] int64, labels [B] int64).

    Attributes:
        names: names of the labels.
        padding: the token id that fills up texts; no other token sees it.
    """

    names: tuple[str, ...]
    padding: int = 0

    @override
    @property
    def labels(self) -> tuple[str, ...]:
        return self.names

    def logits(self, inputs: Tensor) -> Tensor:
        """See `Classifier`. If a model returns logits for every token, their mean over a text is taken."""
        real = inputs != self.padding
        if of_transformers(self.model):
            theirs: Tensor = self.model(input_ids=inputs, attention_mask=real.long()).logits
            return theirs.float()
        found: Tensor = self.model(inputs, real) if takes_real(self.model) else self.model(inputs)
        if found.ndim == inputs.ndim:
            return found.float()
        # With a linear head, the mean of its outputs equals its output for the mean of its inputs.
        shares = real / real.sum(dim=-1, keepdim=True).clamp(min=1)
        mean: Tensor = (found * shares.unsqueeze(-1)).sum(dim=-2)
        return mean


@part
class TextClassificationBuilder(TaskBuilder):
    """Builds the task that predicts a label for every text."""

    reads = (TextSource,)
    own_source = "topics"
    what = "texts"
    architectures = ("transformer",)

    @override
    def read(self, source: Source, reading: Reading) -> Encoded | FederatedData:
        assert isinstance(source, TextSource)
        return text_samples(
            source.texts(),
            str(source),
            window=reading.window,
            vocabulary=reading.vocabulary,
            test_fraction=reading.test_fraction,
            tokenizer=reading.tokenizer,
        )

    @override
    def build(self, data: FederatedData, architecture: Architecture, seed: int) -> TextClassification:
        # Our Transformer returns logits for every token, and `TextClassification` takes their mean.
        needs = Needs(
            "sample",
            data.inputs,
            data.outputs,
            vocabulary=data.vocabulary,
            labels=data.labels,
            padding=data.padding,
        )
        return TextClassification(architecture.build(needs, seed), data.labels, data.padding)

    @override
    def build_pretrained(self, data: FederatedData, name: str, seed: int) -> TextClassification:
        from transformers import AutoModelForSequenceClassification

        kind = AutoModelForSequenceClassification
        model = load_classifier(kind, name, "a model that classifies texts", data.labels, seed)
        settings: Any = model.config
        settings.pad_token_id = data.padding  # causal models find a text's end by it
        task = TextClassification(model, data.labels, data.padding)
        check_reader(task, name, data)
        return task
