"""lstm: next characters as in the Shakespeare data, with the usual network of two LSTM layers."""

from __future__ import annotations

import torch
from torch import nn

from .protocol import Settings
from .text import TextWorkload

VOCABULARY, CONTEXT = 80, 80


class Network(nn.Module):
    """Embedding of 8, two LSTM layers of 256 and a linear layer, 0.8 million parameters.

    The network for Shakespeare of LEAF (arXiv 1812.01097), which predicts a character at every place, as in
    Reddi et al. (arXiv 2003.00295).
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.lstm = nn.LSTM(8, 256, num_layers=2, batch_first=True)
        self.head = nn.Linear(256, VOCABULARY)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, T, vocabulary] of characters [B, T]."""
        logits: torch.Tensor = self.head(self.lstm(self.embedding(characters))[0])
        return logits


class LstmWorkload(TextWorkload):
    """Texts of 80 characters; a recurrent network, whose many small steps follow one after another."""

    name = "lstm"
    settings = Settings(clients=700, cohort=10, batch=10, steps=2, lr=1.0)
    vocabulary, context = VOCABULARY, CONTEXT

    def make_model(self) -> nn.Module:
        """See `Workload`."""
        return Network()
