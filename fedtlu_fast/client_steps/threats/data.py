"""Threats to what clients train on. What they test on stays right.

A client's wrong data are the same in every round. Of a batch, tokens are the first tensor and labels the
last; of a language model's tokens both are one.
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
"""A label that is no label."""


@part
class DataThreat(Threat):
    """Base of the threats to data: a subclass says how a client's samples are spoiled."""

    changes: ClassVar[frozenset[str]] = frozenset({"samples"})

    @override
    def before(self, client: ClientContext, start: ClientStart) -> ClientStart:
        batch = self.spoiled(client, start.samples.all())
        return replace(start, samples=Samples(batch, np.arange(len(start.samples))))

    def spoiled(self, client: ClientContext, batch: Batch) -> Batch:
        """All of the client's samples, spoiled."""
        raise NotImplementedError


@part
class LabelNoise(DataThreat):
    """Each label becomes, with a probability of `strength`, another one; all others are equally likely.

    Attributes:
        strength: in (0, 1].
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
    """Each token becomes, with a probability of `strength`, another one; all others are equally likely.

    Attributes:
        strength: in (0, 1].
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
        # Where there is no label, it may be padding.
        return (torch.where(batch[-1] != IGNORED, noisy, tokens), *batch[1:])


@part
class LabelFlip(DataThreat):
    """Label l of n becomes label n - 1 - l; without labels, tokens are flipped likewise."""

    @override
    def spoiled(self, client: ClientContext, batch: Batch) -> Batch:
        count, labels = client.facts.labels or client.facts.tokens, batch[-1]
        return (*batch[:-1], torch.where(labels != IGNORED, count - 1 - labels, labels))


def _replaced(values: Tensor, count: int, share: float, draws: np.random.Generator) -> Tensor:
    """Each with a probability of `share` another of 0 to count - 1, all of them equally likely."""
    struck = torch.from_numpy(draws.random(tuple(values.shape)) < share).to(values.device)
    shift = torch.from_numpy(draws.integers(1, max(count, 2), tuple(values.shape))).to(values.device)
    return torch.where(struck, (values + shift) % count, values)
