"""Top-k: a client sends the largest numbers of its change (Stich et al., arXiv 1809.07599).

Of n numbers, the k with the largest magnitudes are sent as they are, and zeros stand for the others. This
loses no more than the share 1 - k/n of the change's energy (its squared L2 norm). It is biased, so that error
feedback is on by default (`error_feedback`).

A message has k float32 numbers and their positions (`coding.position_bits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.client_steps.step import ClientContext, ClientStep
from fedtlu_fast.clients.trainer import Blocks, ClientUpdate
from fedtlu_fast.compression.coding import NUMBER_BITS, count_kept, position_bits, sent_sizes, whole_bytes
from fedtlu_fast.compression.error_feedback import send_compressed
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.layout.parameter_layout import Layer
from fedtlu_fast.parts import part


@part
class TopK(ClientStep):
    """Clients send the largest numbers of their change.

    Attributes:
        keep: share of the numbers that a client sends, rounded, but at least one number.
        by_layer: whether the share is of each layer; otherwise, of all numbers of the blocks that the client
            sends.
        error_feedback: whether a client adds the numbers that it has not sent to its next change, which takes
            4 P bytes for each client that has taken part.
    """

    keep: Annotated[float, Field(gt=0, le=1)] = 0.01
    by_layer: bool = False
    error_feedback: bool = True

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        return send_compressed(client, update, self._largest, feedback=self.error_feedback)

    @override
    def message_bytes(self, layout: ParameterLayout, blocks: Blocks) -> int:
        bits = 0
        for size in self._pieces(sent_sizes(layout, blocks)):
            count = count_kept(self.keep, size)
            bits += NUMBER_BITS * count + position_bits(count, size)
        return whole_bytes(bits)

    def _largest(self, change: Tensor, layers: Sequence[Layer]) -> Tensor:
        pieces = self._pieces([layer.numel for layer in layers])
        return torch.cat(
            [largest(own, count_kept(self.keep, len(own))) for own in torch.split(change, pieces)]
        )

    def _pieces(self, sizes: list[int]) -> list[int]:
        """Returns the sizes of the pieces of a change of which a share is sent."""
        return sizes if self.by_layer else [sum(sizes)]


def largest(values: Tensor, count: int) -> Tensor:
    """Returns `values` [n] with zeros in place of all but the `count` numbers of the largest magnitude."""
    places = values.abs().topk(count, sorted=False).indices
    found = torch.zeros_like(values)
    found[places] = values[places]
    return found
