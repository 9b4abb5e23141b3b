"""Random-k: a client sends random numbers of its change (Konecny et al., arXiv 1610.05492, "random mask").

Of n numbers, k different ones are drawn in every round, each set with the same chance. Without error feedback
they are multiplied by n / k, so that what the server reads is the change on average (unbiased). With error
feedback (Stich et al., arXiv 1809.07599) they are sent as they are, and the share 1 - k/n of the change's
energy is lost on average.

A message has k float32 numbers. As in the paper, a seed from which the server draws the same positions is
sent in place of the positions; it has 64 bits (ours). No seed is sent where all numbers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.client_steps.step import ClientContext, ClientStep
from fedtlu_fast.clients.trainer import Blocks, ClientUpdate
from fedtlu_fast.compression.coding import NUMBER_BITS, count_kept, sent_sizes, whole_bytes
from fedtlu_fast.compression.error_feedback import send_compressed
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.layout.parameter_layout import Layer
from fedtlu_fast.parts import part

SEED_BITS = 64
"""Bits of the seed of the positions."""


@part
class RandomK(ClientStep):
    """Clients send random numbers of their change, which are other ones for each client and round.

    Attributes:
        keep: share of the numbers of the sent blocks that a client sends, rounded, but at least one number.
        error_feedback: whether a client sends the numbers as they are and adds the others to its next change,
            which takes 4 P bytes for each client that has taken part. Otherwise the numbers are divided by
            the share that is sent.
    """

    keep: Annotated[float, Field(gt=0, le=1)] = 0.1
    error_feedback: bool = False

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        return send_compressed(client, update, partial(self._some, client), feedback=self.error_feedback)

    @override
    def message_bytes(self, layout: ParameterLayout, blocks: Blocks) -> int:
        size = sum(sent_sizes(layout, blocks))
        count = count_kept(self.keep, size)
        return whole_bytes(NUMBER_BITS * count + (SEED_BITS if count < size else 0))

    def _some(self, client: ClientContext, change: Tensor, layers: Sequence[Layer]) -> Tensor:
        size = len(change)
        count = count_kept(self.keep, size)
        drawn = client.generator("random_k").choice(size, count, replace=False, shuffle=False)
        places = torch.from_numpy(drawn).to(change.device)
        found = torch.zeros_like(change)
        found[places] = change[places] * (1.0 if self.error_feedback else size / max(1, count))
        return found
