"""Defines a tagger as a user may already have it: a model, and Datasets of sentences of different lengths."""

import torch
from torch import nn


class Tagger(nn.Module):
    """Maps word ids [B, T] to the logits of three tags [B, T, 3]."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 16, padding_idx=0), nn.Linear(16, 3)
        self.lstm = nn.LSTM(16, 16, num_layers=3, batch_first=True)

    def forward(self, words):
        return self.head(self.lstm(self.embed(words))[0])


class Sentences(torch.utils.data.Dataset):
    """Holds sentences of 3 to 11 words, with a tag for every word."""

    def __init__(self, seed, count=20):
        draws = torch.Generator().manual_seed(seed)
        lengths = torch.randint(3, 12, (count,), generator=draws)
        self.words = [torch.randint(1, 30, (int(n),), generator=draws) for n in lengths]

    def __len__(self):
        return len(self.words)

    def __getitem__(self, index):
        return self.words[index], self.words[index] % 3
