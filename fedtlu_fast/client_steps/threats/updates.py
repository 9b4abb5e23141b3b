"""Threats to the updates that clients send: another change takes the place of the honest one."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.client_steps.step import ClientContext
from fedtlu_fast.client_steps.threats.threat import (
    Strength,
    Threat,
    rms_of_layers,
    spread,
    standard_normal,
)
from fedtlu_fast.clients.trainer import ClientUpdate
from fedtlu_fast.parts import part


@part
class SignFlip(Threat):
    """The client sends its change times ``-strength``.

    Attributes:
        strength: the factor, more than 0.
    """

    strength: Strength = 1.0

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        return _scaled(client, update, -self.strength)


@part
class Scaling(Threat):
    """The client sends its change times `strength`.

    Attributes:
        strength: the factor, more than 0.
    """

    strength: Strength = 10.0

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        return _scaled(client, update, self.strength)


@part
class Noise(Threat):
    """The client adds normal noise to its change.

    Attributes:
        strength: its standard deviation, in root mean squares of the layer's change.
    """

    strength: Strength = 1.0

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        size = self.strength * _rms(client, update)
        return replace(update, params=update.params + size * standard_normal(client, "threat noise"))


@part
class Random(Threat):
    """The client sends normal noise instead of its change.

    Attributes:
        strength: its standard deviation, in root mean squares of the layer's change.
    """

    strength: Strength = 1.0

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        size = self.strength * _rms(client, update)
        return replace(update, params=client.params + size * standard_normal(client, "threat random"))


@part
class Shift(Threat):
    """The client adds a constant to its change of some layers, which raises their score (Eq. 1).

    Attributes:
        strength: the constant, in root mean squares of the layer's change.
        layers: a pattern of the layers' names, such as ``*ln_1*``.
    """

    strength: Strength = 1.0
    layers: str = "*"

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        layout = client.facts.layout
        size = self.strength * _rms(client, update)
        chosen = torch.tensor([fnmatchcase(name, self.layers) for name in layout.names])
        return replace(update, params=update.params + size * spread(chosen, layout).to(size.device))


def _scaled(client: ClientContext, update: ClientUpdate, factor: float) -> ClientUpdate:
    change = update.params - client.params
    return replace(update, params=torch.add(client.params, change, alpha=factor))


def _rms(client: ClientContext, update: ClientUpdate) -> Tensor:
    change = update.params - client.params
    return rms_of_layers(change, client.facts.layout, client.facts.backend)
