"""`ClientStep`, the interface of a step around local training, and the types of its hooks.

A run has a list of steps. Before a client trains, each step in turn may change the client's start; after the
training, each step in turn may change the update that the client sends. On the server an update passes the
same steps in reverse order, so that the last step's packing is undone first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.client_steps.orders import Order
from fedtlu_fast.clients.trainer import Blocks, ClientStart, ClientUpdate, Want
from fedtlu_fast.costs.blocks import NUMBER_BYTES
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.part_memory import NOTHING, ClientMemory, PartMemory
from fedtlu_fast.randomness import generator

Vectors = tuple[Tensor, Tensor]
"""Parameters [P] and buffers [Q], float32."""


@dataclass(frozen=True)
class RunFacts:
    """Facts about a run that every step may use.

    Attributes:
        layout: the model's layout.
        seed: the run's seed.
        clients: number of clients in the federation.
        lr: learning rate of local training with SGD; 0 with another optimizer.
        momentum: momentum of SGD.
        proximal_mu: FedProx's mu of local training.
        tokens: number of token ids; 0 if samples are not tokens.
        labels: number of labels; 0 if samples have no labels other than their tokens.
        backend: the backend that runs the kernels; see `layer_stats`.
    """

    layout: ParameterLayout
    seed: int = 0
    clients: int = 1
    lr: float = 0.0
    momentum: float = 0.0
    proximal_mu: float = 0.0
    tokens: int = 0
    labels: int = 0
    backend: str = "auto"


@dataclass(frozen=True)
class ClientContext:
    """One client in one round, as a step sees it.

    Attributes:
        facts: facts about the run.
        number: the client's number, from 0.
        round: the number of the round, from 1.
        params: [P] float32, the global parameters; not to be changed.
        buffers: [Q] float32, the global floating-point buffers; not to be changed.
        order: the blocks that the client trains and sends; None: all blocks.
        memory: the step's memory of this client. Arrays are read-only; ``torch.tensor(array)`` copies one.
        server: the tensors of the step's memory on the server that `ClientStep.reads` names, by name, as
            read-only arrays.
        start: the start of the client's training; None before the training.
    """

    facts: RunFacts
    number: int
    round: int
    params: Tensor
    buffers: Tensor
    order: Order | None = None
    memory: ClientMemory = field(default_factory=dict)
    server: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    start: ClientStart | None = None

    def generator(self, purpose: str, *, every_round: bool = True) -> np.random.Generator:
        """Returns a generator whose draws depend on the run's seed, the purpose and this client.

        Args:
            purpose: a name that separates these draws from the client's other draws.
            every_round: whether the draws differ from round to round.
        """
        return generator(self.facts.seed, purpose, self.round if every_round else 0, self.number)


@dataclass(frozen=True)
class Arrival:
    """Vectors that arrive at the server, from one client or from several that were trained together.

    Attributes:
        clients: numbers of the clients.
        vectors: parameters [P] and buffers [Q] of one client, or for several clients the weighted sums of
            their changes, ``sum_k weight_k (w_k - w)``.
        single: whether the vectors are one client's own.
        weight: the weight of the vectors in the mean.
    """

    clients: tuple[int, ...]
    vectors: Vectors
    single: bool
    weight: float


@dataclass(frozen=True)
class RoundChange:
    """The aggregated change of a round.

    Attributes:
        change: [P] float32, the aggregated change of the parameters.
        buffers_change: [Q] float32, the aggregated change of the buffers.
        unsent: indices of the blocks that no client sent and that therefore keep their values.
        empty: whether it contains no client's change.
        ordered: whether clients sent chosen blocks only.
        memory: the values that the step has newly remembered about the round's clients, by client.
        weight: the sum of the weights of the clients whose mean the change is; 0 if nobody arrived.
        asked: the blocks that every client of the round was asked to send; None if orders differ, and if
            clients send everything.
    """

    change: Tensor
    buffers_change: Tensor
    unsent: tuple[int, ...] = ()
    empty: bool = False
    ordered: bool = False
    memory: Mapping[int, ClientMemory] = field(default_factory=dict)
    weight: float = 0.0
    asked: Blocks | None = None


@dataclass(frozen=True)
class ServerContext:
    """A round as the server's half of a step sees it.

    Attributes:
        facts: facts about the run.
        round: the number of the round, from 1.
        params: [P] float32, the global parameters with which the clients start.
        buffers: [Q] float32, the global buffers.
        cohort: numbers of the clients that train.
        memory: the step's memory.
        drawn: numbers of the clients that the server drew: the cohort, and those that dropped out.
    """

    facts: RunFacts
    round: int
    params: Tensor
    buffers: Tensor
    cohort: tuple[int, ...] = ()
    memory: PartMemory = NOTHING
    drawn: tuple[int, ...] = ()


class ServerHalf:
    """The server's half of a step, for one round. This base class passes everything on unchanged.

    Attributes:
        server: the tensors that the step remembers on the server after this round; None: they do not change.
    """

    server: Mapping[str, Tensor] | None = None

    def receive(self, arrival: Arrival) -> Arrival | None:
        """Returns the vectors that are passed on for an arrival; None: they are dropped or held back."""
        return arrival

    def finish(self) -> Iterable[Arrival]:
        """Returns the arrivals that were held back until all clients had arrived; they must be sound."""
        return ()

    def complete(self, aggregated: RoundChange) -> RoundChange:
        """Returns the change that takes the place of the aggregated one before it is scored."""
        return aggregated


PASS = ServerHalf()


class ClientStep:
    """The base class of steps around local training; a subclass is a frozen dataclass of its parameters.

    A step with a field `share` applies to that share of the clients only. Such steps take their clients from
    one shuffled order, one step after another, so that no client has two of them.

    Class attributes:
        changes: the fields of a `ClientStart` that the hook `before` may change, out of "samples", "blocks",
            "correction" and "second". The fewer a step names, the more engines support it.
        reads: names of the tensors in the step's memory on the server that clients receive
            (`ClientContext.server`).
        needs_each: whether the server's half has to see each client's vector separately.
        sees_clients: whether the server's half uses vectors or memories of single clients, and not only sums
            over them. ``privacy.server_sees=aggregate`` refuses such a step; one without a half has nothing
            to see.

    Examples:
        >>> from dataclasses import replace
        >>> @dataclass(frozen=True)
        ... class Halve(ClientStep):
        ...     share: float = 0.2
        ...
        ...     def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        ...         return replace(update, params=(client.params + update.params) / 2)
    """

    changes: ClassVar[frozenset[str]] = frozenset({"samples", "blocks", "correction"})
    reads: ClassVar[tuple[str, ...]] = ()
    needs_each: ClassVar[bool] = False
    sees_clients: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The name under which the run keeps the step's memory."""
        return type(self).__name__

    def check(self, facts: RunFacts) -> None:
        """Checks that the step fits the run.

        Raises:
            InputError: it does not fit.
        """

    def own_model(self, client: ClientContext, vectors: Vectors) -> Vectors:
        """Returns the client's own model, with which it trains, probes its gradients and is tested.

        Args:
            client: the client, with the step's memory of it.
            vectors: the global parameters and buffers, or the model that the step before returned; not
                changed.
        """
        return vectors

    def tested_model(self, client: ClientContext, vectors: Vectors) -> Vectors:
        """Returns the client's own model for its local tests, by default that of `own_model`."""
        return self.own_model(client, vectors)

    def before(self, client: ClientContext, start: ClientStart) -> ClientStart:
        """Returns the start that takes the place of `start`, whose tensors must not be changed."""
        return start

    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        """Returns the update that takes the place of `update`, whose tensors must not be changed."""
        return update

    def server_half(self, server: ServerContext) -> ServerHalf:
        """Returns the server's half of the step for one round."""
        return PASS

    def message_bytes(self, layout: ParameterLayout, blocks: Blocks) -> int:
        """Returns the number of bytes in which a client sends the parameters of some blocks.

        A step that overrides this hook compresses. It comes after all other steps of a run, so that `after`
        gets the update that the client is about to send, and the server undoes the compression first. If a
        client takes several such steps, the last one says how many bytes it sends.

        Args:
            layout: the model's layout.
            blocks: ascending indices of the blocks that the client sends.
        """
        sizes = layout.block_sizes()
        return NUMBER_BYTES * sum(sizes[block] for block in blocks)


def compresses(step: ClientStep) -> bool:
    """Tells whether a step compresses what clients send."""
    return does(step, "message_bytes")


def does(step: ClientStep, hook: str) -> bool:
    """Tells whether a step overrides a hook."""
    return getattr(type(step), hook) is not getattr(ClientStep, hook)


def wants(step: ClientStep) -> list[Want]:
    """Returns the requests that a step makes of the engine that trains the clients."""
    changes = step.changes if does(step, "before") else frozenset[str]()
    found: list[tuple[Want, bool]] = [
        ("each vector", step.needs_each),
        ("own model", does(step, "own_model")),
        ("blocks", "blocks" in changes),
        ("correction", "correction" in changes),
        ("second model", "second" in changes),
    ]
    return [want for want, wanted in found if wanted]
