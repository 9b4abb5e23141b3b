"""Text classification: a label for every text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fedtlu_fast.config import ModelConfig
from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.sources.source import Source, TextSource
from fedtlu_fast.data.texts import text_samples
from fedtlu_fast.part import part
from fedtlu_fast.pretrained import load_classifier
from fedtlu_fast.tasks.builder import Reading, TaskBuilder
from fedtlu_fast.tasks.classifier import Classifier
from fedtlu_fast.tasks.transformer import Transformer


@dataclass(frozen=True)
class TextClassification(Classifier):
    """A batch is (tokens [B, T], labels [B]).

    Attributes:
        names: of the labels.
        padding: the token id that fills up texts; nothing looks at it.
    """

    names: tuple[str, ...]
    padding: int = 0

    @property
    def labels(self) -> tuple[str, ...]:
        """See `Classifier`."""
        return self.names

    def logits(self, inputs: Tensor) -> Tensor:
        """See `Classifier`; our Transformer's are the mean over a text's tokens."""
        real = inputs != self.padding
        if isinstance(self.model, Transformer):
            # The head is linear: the mean of its outputs is its output of the mean.
            shares = real / real.sum(dim=-1, keepdim=True).clamp(min=1)
            mean: Tensor = (self.model(inputs, real) * shares.unsqueeze(-1)).sum(dim=-2)
            return mean
        found: Tensor = self.model(input_ids=inputs, attention_mask=real.long()).logits
        return found.float()


@part
class TextClassificationBuilder(TaskBuilder):
    """A label for every text."""

    reads = (TextSource,)
    own_source = "topics"
    what = "texts"

    def read(self, source: Source, reading: Reading) -> Encoded | FederatedData:
        """See `TaskBuilder`."""
        assert isinstance(source, TextSource)
        return text_samples(
            source.texts(),
            str(source),
            window=reading.window,
            vocabulary=reading.vocabulary,
            test_fraction=reading.test_fraction,
            tokenizer=reading.tokenizer,
        )


def build_text_classifier(config: ModelConfig, data: FederatedData, seed: int) -> nn.Module:
    """Our Transformer of the size in the settings, or pre-trained weights with a head for these labels.

    Args:
        config: size, or the name of weights.
        data: labels, token ids and the length of a sample.
        seed: of everything that is drawn.

    Raises:
        InputError: weights that cannot be loaded.
    """
    if config.pretrained is None:
        return Transformer.build(config, data.vocabulary, data.inputs, data.outputs, seed, causal=False)
    from transformers import AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification
    model = load_classifier(kind, config.pretrained, "a model that classifies texts", data.labels, seed)
    settings: Any = model.config
    settings.pad_token_id = data.padding  # models that look back only find a text's end by it
    return model
