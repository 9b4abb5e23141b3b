"""The base class of threats, and the computations that several of them share."""

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
"""The strength of a threat; 1e38 is close to the largest finite float32."""


@part
class Threat(ClientStep):
    """A step that makes some clients noisy or malicious.

    Two threats of a run apply to different clients. FedTLU's paper names noisy and malicious clients without
    defining them; kinds and strengths are those of the cited papers on attacks, and otherwise ours.

    Attributes:
        share: share of the clients to which the threat applies, in (0, 1].
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.2


def rms_of_layers(change: Tensor, layout: ParameterLayout, backend: str) -> Tensor:
    """Returns [P] float32: for each number of a change [P], the root mean square of its layer's change."""
    stats = layer_stats(change, layout, backend=backend).cpu()
    return spread(stats.l2 / stats.count.clamp(min=1).sqrt(), layout).to(change.device)


def spread(layers: Tensor, layout: ParameterLayout) -> Tensor:
    """Returns [P] float32, in which every number has the value [L] of its layer."""
    sizes = torch.tensor([layer.numel for layer in layout.layers])
    return layers.float().repeat_interleave(sizes)


def standard_normal(client: ClientContext, purpose: str) -> Tensor:
    """Returns [P] float32, standard normal numbers that are drawn anew in every round."""
    draws = client.generator(purpose)
    noise = torch.from_numpy(draws.standard_normal(len(client.params), dtype=np.float32))
    return noise.to(client.params.device)
