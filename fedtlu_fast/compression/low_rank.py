"""Low rank: a client sends two thin matrices for each matrix of its change (PowerSGD, arXiv 1905.13727).

A matrix M [n, m] of the change, with the client's error, is replaced by a matrix of rank r. With Q [m, r] of
the client's last message (warm start),

    P = orthonormal basis of M Q,        Q' = M^T P,        the server reads P Q'^T

This is one step of power iteration, and the projection P P^T M of M, which never has more energy than M. A
tensor with more than two dimensions is a matrix with as many rows as its first dimension. Tensors with one
dimension, and matrices whose factors would be no smaller, are sent whole.

Vogels et al. average P over the workers before Q' is computed, and then Q', so that all workers have the same
factors. That takes two exchanges with the server in each step. A client of a federation sends one message a
round, so that here each client sends factors of its own, and their products are averaged (ours): the mean of
K clients has a rank of up to K r. These points are ours, too: the first Q is drawn for each client; Q is kept
with norm 1, and as it was if the new one is zero; a block that is not sent keeps its Q. Error feedback is
part of the method (`error_feedback`).

A message has r (n + m) float32 numbers for each matrix, and n for each tensor that is sent whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.client_steps.step import ClientContext, ClientStep
from fedtlu_fast.clients.trainer import Blocks, ClientUpdate
from fedtlu_fast.compression.coding import NUMBER_BITS, sent_layers, whole_bytes
from fedtlu_fast.compression.error_feedback import send_compressed
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.layout.parameter_layout import Layer
from fedtlu_fast.part_memory import tensor_like
from fedtlu_fast.parts import part

START = "start"
"""The name under which each client keeps Q of all matrices, one after another, as a vector of float32."""


@part
class LowRank(ClientStep):
    """Clients send the matrices of their change as products of two thin matrices.

    What a client remembers takes 4 P bytes, and 4 r bytes for each column of a matrix.

    Attributes:
        rank: the rank r; that of a matrix with fewer rows or columns is their number.
    """

    rank: Annotated[int, Field(gt=0)] = 2

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        factors = _Factors(self.rank, client)
        sent = send_compressed(client, update, factors.compress_, feedback=True)
        if not sent.memory or not len(factors.start):
            return sent
        return replace(sent, memory={**sent.memory, START: factors.start.cpu().numpy()})

    @override
    def message_bytes(self, layout: ParameterLayout, blocks: Blocks) -> int:
        count = 0
        for layer in sent_layers(layout, blocks):
            rows, columns, rank = _matrix(layer, self.rank)
            count += rank * (rows + columns) if rank else layer.numel
        return whole_bytes(NUMBER_BITS * count)


class _Factors:
    """The factors Q of one client.

    Attributes:
        start: those of all matrices of the model, one after another.
    """

    def __init__(self, rank: int, client: ClientContext) -> None:
        self._matrices: dict[str, tuple[int, int, int, int]] = {}
        size = 0
        for layer in client.facts.layout.layers:
            rows, columns, own = _matrix(layer, rank)
            self._matrices[layer.name] = rows, columns, own, size
            size += columns * own
        held = client.memory.get(START)
        if held is None:
            held = client.generator("low_rank", every_round=False).standard_normal(size, dtype=np.float32)
        self.start = tensor_like(held, client.params).clone()

    def compress_(self, change: Tensor, layers: Sequence[Layer]) -> Tensor:
        """Returns the change that the server reads, and keeps the new factors of these layers."""
        pieces = torch.split(change, [layer.numel for layer in layers])
        return torch.cat([self._product_(*pair) for pair in zip(pieces, layers, strict=True)])

    def _product_(self, values: Tensor, layer: Layer) -> Tensor:
        rows, columns, rank, at = self._matrices[layer.name]
        if not rank:
            return values
        matrix = values.view(rows, columns)
        held = self.start[at : at + columns * rank].view(columns, rank)
        basis: Tensor = torch.linalg.qr(matrix @ held).Q
        factor = matrix.T @ basis
        norm = torch.linalg.vector_norm(factor)
        held.copy_(torch.where(norm > 0, factor / norm, held))
        product: Tensor = basis @ factor.T
        return product.view(-1)


def _matrix(layer: Layer, rank: int) -> tuple[int, int, int]:
    """Returns the rows, the columns and the rank of a layer's matrix; rank 0: the layer is sent whole."""
    if len(layer.shape) < 2 or not layer.numel:
        return 0, 0, 0
    rows = layer.shape[0]
    columns = layer.numel // rows
    own = min(rank, rows, columns)
    return (rows, columns, own) if own * (rows + columns) < layer.numel else (0, 0, 0)
