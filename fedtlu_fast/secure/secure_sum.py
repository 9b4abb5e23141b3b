"""The client step by which a simulation aggregates as under secure aggregation.

The step's half on the server stands for the network: it makes a `SecureClient` of every client that was
drawn and one `SecureServer`, and carries messages between them. A vector that arrives goes to its client,
and only the masked one to the server. What the run then scores, chooses from and applies is what the server
could unmask. Clients that were drawn and send nothing, because they dropped out, came too late, failed or
were refused, are the protocol's dropouts after the sharing of keys.

All secrets follow from the run's seed, so that a run can be repeated. Whoever knows the seed can unmask every
vector; a real federation draws them from the operating system, as `SecureClient` does by default.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from math import floor
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from typing_extensions import override

from fedtlu_fast.client_steps.step import (
    Arrival,
    ClientStep,
    RoundChange,
    RunFacts,
    ServerContext,
    ServerHalf,
)
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.errors import InputError
from fedtlu_fast.extras import check_extra
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.parts import part
from fedtlu_fast.privacy.discrete import Grid
from fedtlu_fast.privacy.private_mean import NOISE
from fedtlu_fast.randomness import generator
from fedtlu_fast.secure.client import SecureClient
from fedtlu_fast.secure.fixed_point import Bits, FixedPoint, Ring
from fedtlu_fast.secure.messages import TooFewClientsError, bytes_up
from fedtlu_fast.secure.server import SecureServer
from fedtlu_fast.secure.shamir import Draw

logger = logging.getLogger("fedtlu_fast")

FIELD = "privacy.masks"
"""The section of settings with the step's parameters."""
FEWEST = 2
"""A sum over fewer clients is a client's own vector."""


@part
class SecureSum(ClientStep):
    """The server gets the sum of the clients' weighted changes, by pairwise masks, and the sum of weights.

    Attributes:
        clients: the number of clients that are drawn in a round, for the bytes that each of them sends.
        bits: see `FixedPoint`.
        largest_change: see `FixedPoint`.
        largest_weight: see `FixedPoint`.
        threshold: more than this share of the drawn clients has to send, or the round changes nothing. The
            same number of clients that work together with the server can unmask the others' vectors.
        private: whether the sum of clipped changes gets noise; a run sets it. Clients whose change is not
            sound then send zeros with the weight 0, so that they do not decide whether the others count.
        toward_zero: whether numbers are rounded toward zero, so that no change gets longer than it was
            clipped; a run sets it where the server adds the noise. A client's own noise would get shorter.
        grid: the steps of changes with discrete noise, of which the server adds its part to the sum while
            it still consists of whole numbers, and passes on the sum as one change; None: there is no such
            noise.
    """

    clients: Annotated[int, Field(ge=FEWEST)]
    bits: Bits = 64
    largest_change: Annotated[float, Field(gt=0, le=2**20)] = 16.0
    largest_weight: Annotated[int, Field(ge=1, le=2**30)] = 2**20
    threshold: Annotated[float, Field(ge=0.5, lt=1)] = 2 / 3
    private: bool = False
    toward_zero: bool = False
    grid: Grid | None = None
    needs_each: ClassVar[bool] = True  # to mask it, in the place of its client
    sees_clients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.encoding(self.clients)

    def encoding(self, clients: int) -> FixedPoint:
        """Returns the encoding for a round with so many clients.

        Raises:
            InputError: their sum does not fit.
        """
        given = (self.bits, self.largest_change, self.largest_weight, self.toward_zero)
        return FixedPoint(clients, *given, None if self.grid is None else self.grid.step)

    def needed(self, clients: int) -> int:
        """Returns the number of clients, of so many, that have to send."""
        return fewest_of(clients, self.threshold)

    @override
    def check(self, facts: RunFacts) -> None:
        check_extra("cryptography", "privacy.secure_aggregation", True, "privacy")

    @override
    def server_half(self, server: ServerContext) -> ServerHalf:
        return _Network(self, server)

    @override
    def message_bytes(self, layout: ParameterLayout, blocks: Blocks) -> int:
        sizes = layout.block_sizes()
        numbers = sum(sizes[block] for block in blocks) + 1
        return self.bits // 8 * numbers + bytes_up(self.clients)


def fewest_of(clients: int, threshold: float) -> int:
    """Returns how many of so many drawn clients have to send: more than the threshold's share."""
    return max(FEWEST, floor(threshold * clients + 1e-9) + 1)


class _Network(ServerHalf):
    """The clients and the server of one round, and the messages between them."""

    def __init__(self, step: SecureSum, context: ServerContext) -> None:
        self._step, self._context = step, context
        drawn = context.drawn or context.cohort
        threshold = step.needed(len(drawn))
        self._encoding = step.encoding(max(FEWEST, len(drawn)))
        self._server = SecureServer(threshold)
        self._clients = {client: SecureClient(client, threshold, self._draw(client)) for client in drawn}
        self._sent: list[int] = []
        self._cut: list[int] = []
        self._weight = 0.0
        self._can_start = len(drawn) >= threshold
        if self._can_start:
            self._share_keys()

    @override
    def receive(self, arrival: Arrival) -> None:
        (client,) = arrival.clients
        if not self._can_start:
            return
        params, buffers = arrival.vectors
        moved = torch.cat([params - self._context.params, buffers - self._context.buffers])
        if moved.numel() and float(moved.abs().max()) > self._encoding.reach:
            self._cut.append(client)
        try:
            numbers = self._encoding.encode(moved.cpu().numpy(), arrival.weight)
        except InputError as error:
            raise error.of(f"{FIELD}.{error.field}") from None
        self._server.add_(self._clients[client].mask(numbers))
        self._sent.append(client)

    @override
    def finish(self) -> Iterable[Arrival]:
        index = self._context.round
        if self._cut:
            most, limit = f"{FIELD}.largest_change", self._encoding.reach
            logger.warning("round %d: clients %s cut numbers to %s=%g", index, self._cut, most, limit)
        answered = [*self._sent, *self._send_zeros()]
        try:
            asked = self._server.ask()
            total = self._server.unmask([self._clients[client].reveal(asked) for client in answered])
        except TooFewClientsError as error:
            logger.warning("round %d: secure aggregation: %s; the server gets no sum", index, error)
            return
        if not self._sent:
            return  # the sum of zeros, which no arrival stands for
        change, self._weight = self._encoding.decode(self._noisy(total))
        if self._step.grid is not None:
            # The sum and not the mean: by its rounding, a mean would tell how many clients are in it.
            self._weight = 1.0
        params = self._context.params
        moved = torch.from_numpy(change.astype(np.float32)).to(params.device)
        vectors = moved[: len(params)], moved[len(params) :]
        yield Arrival(tuple(self._sent), vectors, False, self._weight)

    @override
    def complete(self, aggregated: RoundChange) -> RoundChange:
        return replace(aggregated, weight=self._weight, empty=aggregated.empty or not self._weight)

    def _noisy(self, total: Ring) -> Ring:
        """Returns the sum [N + 1] with the server's discrete noise in the parameters' numbers."""
        grid, context = self._step.grid, self._context
        if grid is None:
            return total
        draws = generator(context.facts.seed, NOISE, context.round)
        noise = np.zeros(len(total), np.int64)
        noise[: len(context.params)] = grid.rest(draws, len(context.params), len(self._sent))
        return total + noise.astype(total.dtype)  # modulo 2^bits, as the sum

    def _send_zeros(self) -> list[int]:
        """Sends zeros for the clients of the cohort that have no sound change; returns their numbers."""
        if not (self._can_start and self._step.private):
            return []
        context, sent = self._context, set(self._sent)
        spoilt = [client for client in context.cohort if client not in sent]
        zeros = np.zeros(len(context.params) + len(context.buffers), np.float32)
        for client in spoilt:
            self._server.add_(self._clients[client].mask(self._encoding.encode(zeros, 0.0)))
        return spoilt

    def _share_keys(self) -> None:
        keys = self._server.publish([client.advertise() for client in self._clients.values()])
        sealed = [own for client in self._clients.values() for own in client.share(keys)]
        for receiver, own in self._server.deliver(sealed).items():
            self._clients[receiver].keep(own)

    def _draw(self, client: int) -> Draw:
        return generator(self._context.facts.seed, "secure aggregation", self._context.round, client).bytes
