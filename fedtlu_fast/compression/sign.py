"""The scaled sign: a client sends a bit for each number of its change (Karimireddy et al., arXiv 1901.09847).

The numbers of a layer become their signs times the layer's mean magnitude. This is biased, so that error
feedback is on by default (`error_feedback`). A number that is 0 has no sign, and a bit cannot say so: it gets
the sign of a fair coin (ours), so that the parameters that no sample touched do not drift in one direction.

A message has a bit for each number and a float32 mean magnitude for each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.client_steps.step import ClientContext, ClientStep
from fedtlu_fast.clients.trainer import Blocks, ClientUpdate
from fedtlu_fast.compression.coding import NUMBER_BITS, sent_sizes, whole_bytes
from fedtlu_fast.compression.error_feedback import send_compressed
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.layout.parameter_layout import Layer
from fedtlu_fast.parts import part


@part
class Sign(ClientStep):
    """Clients send the signs of their change, and the mean magnitude of each layer.

    Attributes:
        error_feedback: whether a client adds what the signs do not say to its next change, which takes 4 P
            bytes for each client that has taken part.
    """

    error_feedback: bool = True

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        return send_compressed(client, update, partial(_scaled_signs, client), feedback=self.error_feedback)

    @override
    def message_bytes(self, layout: ParameterLayout, blocks: Blocks) -> int:
        return whole_bytes(sign_bits(layout, blocks, scaled=True))


def sign_bits(layout: ParameterLayout, blocks: Blocks, *, scaled: bool) -> int:
    """Returns the bits of the signs of these blocks, with or without a float32 for each layer."""
    sizes = [size for size in sent_sizes(layout, blocks) if size]
    return sum(sizes) + (NUMBER_BITS * len(sizes) if scaled else 0)


def signs(values: Tensor, draws: np.random.Generator) -> Tensor:
    """Returns 1 or -1 for each of these values [n]; for a 0, either with the same chance."""
    found, zero = values.sign(), values == 0
    count = int(zero.sum())
    if count:
        coins = 2 * draws.integers(0, 2, count, dtype=np.int8) - 1
        found[zero] = torch.from_numpy(coins).to(values)
    return found


def mean_magnitude(values: Tensor) -> Tensor:
    """Returns the mean of the magnitudes of these values [n]; 0 without any."""
    return values.abs().sum() / max(1, len(values))


def _scaled_signs(client: ClientContext, change: Tensor, layers: Sequence[Layer]) -> Tensor:
    sizes = [layer.numel for layer in layers]
    pairs = zip(
        torch.split(signs(change, client.generator("sign")), sizes), torch.split(change, sizes), strict=True
    )
    return torch.cat([own * mean_magnitude(values) for own, values in pairs])
