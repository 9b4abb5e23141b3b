"""Ditto: every client trains a model of its own in addition to the global one (Li et al., arXiv 2012.04221).

This is Algorithm 1 of the paper. Any federated algorithm trains the global model, here the run's. On the same
samples client k takes the same number of steps on its own model v_k, which it never sends:

    v_k <- v_k - lr (grad F_k(v_k) + lam (v_k - w_t))

Local tests use v_k. The paper does not say how v_k begins; here v_k is at first the global model of the first
round in which the client trains (ours), and until then the client is tested with the global model. A selector
chooses blocks of the global model only. A client whose second training yields numbers that are not finite
keeps its old v_k (ours).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field
from typing_extensions import override

from fedtlu_fast.client_steps.step import ClientContext, ClientStep, Vectors
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate, SecondModel
from fedtlu_fast.part_memory import tensor_like
from fedtlu_fast.parts import part
from fedtlu_fast.soundness import sound

PARAMS, BUFFERS = "params", "buffers"
"""The names under which each client keeps its own model, [P] and [Q] float32."""


@part
class Ditto(ClientStep):
    """Each client also trains a model of its own: 4 (P + Q) bytes for each client that has taken part.

    Attributes:
        lam: strength of the term that holds a client's model to the global one; with 0, models are purely
            local.
    """

    lam: Annotated[float, Field(ge=0)] = 0.1
    changes: ClassVar[frozenset[str]] = frozenset({"second"})

    @override
    def tested_model(self, client: ClientContext, vectors: Vectors) -> Vectors:
        if PARAMS not in client.memory:
            return vectors
        params, buffers = vectors
        return tensor_like(client.memory[PARAMS], params), tensor_like(client.memory[BUFFERS], buffers)

    @override
    def before(self, client: ClientContext, start: ClientStart) -> ClientStart:
        own = self.tested_model(client, (client.params, client.buffers))
        return replace(start, second=SecondModel(*own, self.lam))

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        if update.second is None or not all(map(sound, update.second)):
            return update
        params, buffers = (vector.cpu().numpy().copy() for vector in update.second)
        return replace(update, memory={PARAMS: params, BUFFERS: buffers})
