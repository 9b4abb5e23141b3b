"""The base of every threat, and what several of them compute."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedtlu_fast.client_steps.step import ClientContext, ClientStep
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.parts import part
from fedtlu_fast.scoring import layer_stats

Strength = Annotated[float, Field(gt=0, le=1e38)]
"""Beyond 1e38 float32 knows infinity alone."""


@part
class Threat(ClientStep):
    """What is wrong with some clients: with their data, or with what they send.

    Two threats strike different clients. The papers name noisy and malicious clients and define neither;
    kinds and strengths are those of the attack literature where it is cited, and else ours.

    Attributes:
        share: of the clients, in (0, 1].
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.2


def rms_of_layers(change: Tensor, layout: ParameterLayout, backend: str) -> Tensor:
    """[P]: for each number of a change [P], the root mean square of its layer."""
    stats = layer_stats(change, layout, backend=backend).cpu()
    return spread(stats.l2 / stats.count.clamp(min=1).sqrt(), layout).to(change.device)


def spread(layers: Tensor, layout: ParameterLayout) -> Tensor:
    """[P] float32 from one value for each layer, [L]."""
    sizes = torch.tensor([layer.numel for layer in layout.layers])
    return layers.float().repeat_interleave(sizes)


def standard_normal(client: ClientContext, purpose: str) -> Tensor:
    """[P] float32, drawn anew in every round."""
    draws = client.generator(purpose)
    noise = torch.from_numpy(draws.standard_normal(len(client.params), dtype=np.float32))
    return noise.to(client.params.device)
