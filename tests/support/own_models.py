"""Models, a source and a task as a user would write them; tests give them by their dotted names."""

import torch
from torch import Tensor, nn

from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.sources.source import Read, TextSource
from fedtlu_fast.data.splits import announce
from fedtlu_fast.data.text_set import TextSet
from fedtlu_fast.parts import part
from fedtlu_fast.tasks.text_classification import TextClassificationBuilder


class Reader(nn.Module):
    """A model with logits for every token."""

    def __init__(self, vocabulary: int, outputs: int, size: int = 4) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(vocabulary, size), nn.Linear(size, outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps [B, T] to [B, T, outputs]."""
        return self.head(torch.tanh(self.tokens(tokens)))


class Whole(Reader):
    """A model with logits for a whole text, without its padding."""

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Maps [B, T] to [B, outputs]."""
        kept = self.tokens(tokens) * real.unsqueeze(-1)
        return self.head(kept.sum(dim=-2) / real.sum(dim=-1, keepdim=True).clamp(min=1))


def viewer(channels: int, shape: tuple[int, int, int], outputs: int, width: int = 3) -> nn.Module:
    """A function that makes a model."""
    conv = nn.Conv2d(channels, width, 3, padding=1)
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(width * shape[1] * shape[2], outputs))


class Vectors(nn.Linear):
    """A model for vectors."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)


class Hungry(nn.Module):
    """A model with an argument that no data provide."""

    def __init__(self, outputs: int, depth: int) -> None:
        super().__init__()


@part
class Sayings(TextSource):
    """A source of two sayings with repetitions.

    Attributes:
        copies: number of copies of each saying.
    """

    copies: int = 40

    def texts(self) -> Read[TextSet]:
        """See `TextSource`."""
        labels = torch.arange(2 * self.copies).remainder(2).numpy()
        texts = [("good morning to you", "nothing ventured nothing gained")[label] for label in labels]
        attributes = {"label": Attribute(labels, ("greeting", "proverb"))}
        return Read(TextSet(texts, attributes), None, announce("sayings", None))


@part
class Doubtful(TextClassificationBuilder):
    """A user's own text classification, whose default is one of our architectures."""

    own_source = "support.own_models:Sayings"
