"""Quantisation: a client sends every number of its change in 8, 4 or 2 bits (QSGD, arXiv 1610.02132).

The numbers of a layer form buckets. A bucket has a scale m, here its largest magnitude, as in the experiments
of Alistarh et al.; their bounds are for the L2 norm, which is never smaller. With s levels, a number v is
rounded to one of the two neighbours among the multiples of m / s, at random, so that it is v on average
(unbiased). With b bits s is 2^(b-1) - 1, that is 127, 7 or 1; with one level this is TernGrad (arXiv
1705.07878).

A message has b bits for each number, which say its sign and level, and a float32 scale for each bucket. The
paper's Elias code, whose length depends on the numbers, is not used. Buckets do not cross layers (ours), so
that a layer of large changes does not coarsen another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from fedtlu_fast.client_steps.step import ClientContext, ClientStep
from fedtlu_fast.clients.trainer import Blocks, ClientUpdate
from fedtlu_fast.compression.coding import NUMBER_BITS, sent_sizes, whole_bytes
from fedtlu_fast.compression.error_feedback import send_compressed
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.layout.parameter_layout import Layer
from fedtlu_fast.parts import part


@part
class Quantise(ClientStep):
    """Clients send every number of their change in a few bits, rounded at random and right on average.

    Attributes:
        bits: bits of each number.
        bucket: how many neighbouring numbers of a layer share a scale.
    """

    bits: Literal[8, 4, 2] = 8
    bucket: Annotated[int, Field(gt=0)] = 512

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        return send_compressed(client, update, partial(self._quantised, client), feedback=False)

    @override
    def message_bytes(self, layout: ParameterLayout, blocks: Blocks) -> int:
        sizes = sent_sizes(layout, blocks)
        buckets = sum(-(-size // self.bucket) for size in sizes)
        return whole_bytes(self.bits * sum(sizes) + NUMBER_BITS * buckets)

    def _quantised(self, client: ClientContext, change: Tensor, layers: Sequence[Layer]) -> Tensor:
        drawn = client.generator("quantise").random(len(change), dtype=np.float32)
        draws, sizes = torch.from_numpy(drawn).to(change.device), [layer.numel for layer in layers]
        pairs = zip(torch.split(change, sizes), torch.split(draws, sizes), strict=True)
        return torch.cat([rounded(own, self.levels, self.bucket, chance) for own, chance in pairs])

    @property
    def levels(self) -> int:
        """The number s of levels above 0."""
        return (1 << (self.bits - 1)) - 1


def rounded(values: Tensor, levels: int, bucket: int, draws: Tensor) -> Tensor:
    """Returns values [n] that are rounded at random to multiples of their bucket's scale / `levels`.

    Args:
        values: [n] float32.
        levels: number of levels above 0.
        bucket: numbers in a bucket; the last one may have fewer.
        draws: [n] float32, uniform in [0, 1).
    """
    size = len(values)
    if not size:
        return values
    buckets = pad(values, (0, -size % bucket)).view(-1, bucket)
    scales = buckets.abs().amax(dim=1, keepdim=True)
    exact = buckets.abs() / torch.where(scales > 0, scales, 1) * levels
    low = exact.floor()
    level = low + (pad(draws, (0, -size % bucket)).view(-1, bucket) < exact - low)
    return (torch.copysign(level / levels, buckets) * scales).view(-1)[:size]
