"""Threats to the training samples of clients; their test samples stay correct.

A client's wrong samples are the same in every round. Tokens are the first tensor of a batch and labels the
last; a language model's batch has one tensor, which is both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.client_steps.step import ClientContext, RunFacts
from fedtlu_fast.client_steps.threats.threat import Threat
from fedtlu_fast.clients.trainer import ClientStart
from fedtlu_fast.data.population import Batch, Samples
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

IGNORED = -100
"""The value in place of a label where there is none; losses ignore it."""


@part
class DataThreat(Threat):
    """The base class of threats to data; a subclass says how a client's samples are changed."""

    changes: ClassVar[frozenset[str]] = frozenset({"samples"})

    @override
    def before(self, client: ClientContext, start: ClientStart) -> ClientStart:
        batch = self.spoiled(client, start.samples.all())
        return replace(start, samples=Samples(batch, np.arange(len(start.samples))))

    def spoiled(self, client: ClientContext, batch: Batch) -> Batch:
        """Returns all of the client's samples with the threat applied."""
        raise NotImplementedError


@part
class LabelNoise(DataThreat):
    """Replaces each label with probability `strength` by another one, drawn uniformly (ours).

    Attributes:
        strength: the probability, in (0, 1].
    """

    strength: Annotated[float, Field(gt=0, le=1)] = 0.5

    @override
    def check(self, facts: RunFacts) -> None:
        if not facts.labels:
            raise InputError("threats", "label_noise", "another for samples without labels of their own")

    @override
    def spoiled(self, client: ClientContext, batch: Batch) -> Batch:
        draws = client.generator("threat label_noise", every_round=False)
        labels = batch[-1]
        wrong = _replaced(labels, client.facts.labels, self.strength, draws)
        return (*batch[:-1], torch.where(labels != IGNORED, wrong, labels))


@part
class TokenNoise(DataThreat):
    """Replaces each token with probability `strength` by another one, drawn uniformly (ours).

    Attributes:
        strength: the probability, in (0, 1].
    """

    strength: Annotated[float, Field(gt=0, le=1)] = 0.5

    @override
    def check(self, facts: RunFacts) -> None:
        if not facts.tokens:
            raise InputError("threats", "token_noise", "another for samples that are not tokens")

    @override
    def spoiled(self, client: ClientContext, batch: Batch) -> Batch:
        draws = client.generator("threat token_noise", every_round=False)
        tokens = batch[0]
        noisy = _replaced(tokens, client.facts.tokens, self.strength, draws)
        if len(batch) == 1:
            return (noisy,)
        # A token without a label may be padding and stays as it is.
        return (torch.where(batch[-1] != IGNORED, noisy, tokens), *batch[1:])


@part
class LabelFlip(DataThreat):
    """Replaces label l of n labels by label n - 1 - l; in a language model it does so with tokens."""

    @override
    def spoiled(self, client: ClientContext, batch: Batch) -> Batch:
        count, labels = client.facts.labels or client.facts.tokens, batch[-1]
        return (*batch[:-1], torch.where(labels != IGNORED, count - 1 - labels, labels))


def _replaced(values: Tensor, count: int, share: float, draws: np.random.Generator) -> Tensor:
    """Replaces each value with probability `share` by another one from 0 to count - 1, drawn uniformly."""
    struck = torch.from_numpy(draws.random(tuple(values.shape)) < share).to(values.device)
    shift = torch.from_numpy(draws.integers(1, max(count, 2), tuple(values.shape))).to(values.device)
    return torch.where(struck, (values + shift) % count, values)
