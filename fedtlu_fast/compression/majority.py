"""Majority vote: clients send signs, and the server follows the majority (arXiv 1810.05291).

In signSGD with majority vote (Bernstein et al.) every worker sends the signs of its gradient, and the server
moves each parameter by a step of fixed size in the direction that most workers name. Here a client votes with
the signs of the change of its whole local training. Every client counts once, whatever its number of samples,
and a tie leaves the parameter as it is. With a fixed step the server needs nothing but the sum of the votes.

The paper leaves these points open (ours): a number that is 0 votes by a fair coin; without a fixed `step`,
the step of a layer is the median, over the clients that sent the layer, of the mean magnitude of their
changes. It is a median because a mean would give one hostile client back the influence that the vote takes
from it.

What reaches the aggregation rule, and the parts that look at single clients' changes, are votes of 1 and -1.
Under another rule than the mean, the sign of its result counts. There is no error feedback.

A message has a bit for each number, and without a fixed `step` a float32 for each layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.client_steps.step import ClientContext, ClientStep, RoundChange, ServerContext, ServerHalf
from fedtlu_fast.clients.trainer import Blocks, ClientUpdate
from fedtlu_fast.compression.coding import whole_bytes
from fedtlu_fast.compression.error_feedback import send_compressed
from fedtlu_fast.compression.sign import mean_magnitude, sign_bits, signs
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.layout.parameter_layout import Layer
from fedtlu_fast.part_memory import ClientMemory, tensor_like
from fedtlu_fast.parts import part

SIZES = "sizes"
"""The name of the mean magnitudes [L] float32 that a client sends beside its votes; 0 for other layers."""


@part
class MajorityVote(ClientStep):
    """Clients vote for the direction of each parameter.

    Attributes:
        step: how far the server moves each parameter; None: the median of the clients' mean magnitudes, layer
            by layer.
    """

    step: Annotated[float, Field(gt=0)] | None = None

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        update = replace(update, weight=1.0)
        voted = send_compressed(client, update, partial(_votes, client), feedback=False)
        if self.step is not None or voted is update:
            return voted
        layers = torch.split(update.params - client.params, _sizes(client.facts.layout))
        sent = client.facts.layout.layer_mask(_blocks(client, update)).to(update.params)
        return replace(voted, memory={SIZES: (sent * _magnitudes(layers)).cpu().numpy()})

    @override
    def server_half(self, server: ServerContext) -> ServerHalf:
        return _Count(self.step, server)

    @override
    def message_bytes(self, layout: ParameterLayout, blocks: Blocks) -> int:
        return whole_bytes(sign_bits(layout, blocks, scaled=self.step is None))


class _Count(ServerHalf):
    """Turns the mean of the votes into a step in the direction of the majority."""

    def __init__(self, step: float | None, server: ServerContext) -> None:
        self._step, self._server = step, server

    @override
    def complete(self, aggregated: RoundChange) -> RoundChange:
        votes = aggregated.change
        if aggregated.empty or not len(votes):
            return aggregated
        # A mean of K votes of 1 and -1 is 0 or at least 1/K, up to rounding. The limit is relative to the
        # largest mean, because a rule may have scaled the votes.
        limit = votes.abs().max() / (2 * max(1, len(self._server.cohort)))
        direction = torch.where(votes.abs() > limit, votes.sign(), 0)
        return replace(aggregated, change=direction * self._steps(aggregated.memory, votes))

    def _steps(self, memory: Mapping[int, ClientMemory], like: Tensor) -> float | Tensor:
        """Returns how far each parameter moves."""
        if self._step is not None or not memory:
            return self._step or 0.0
        sizes = torch.stack([tensor_like(own[SIZES], like) for own in memory.values()])  # [K, L]
        medians = torch.where(sizes > 0, sizes, torch.nan).nanmedian(dim=0).values.nan_to_num()
        counts = torch.tensor(_sizes(self._server.facts.layout), device=like.device)
        return medians.repeat_interleave(counts)


def _votes(client: ClientContext, change: Tensor, layers: Sequence[Layer]) -> Tensor:
    return signs(change, client.generator("majority"))


def _magnitudes(layers: Sequence[Tensor]) -> Tensor:
    return torch.stack([mean_magnitude(own) for own in layers])


def _sizes(layout: ParameterLayout) -> list[int]:
    return [layer.numel for layer in layout.layers]


def _blocks(client: ClientContext, update: ClientUpdate) -> Blocks:
    every = tuple(range(len(client.facts.layout.blocks)))
    return every if update.sent is None else update.sent
