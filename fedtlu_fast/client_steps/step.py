"""`ClientStep`: what clients do around their local training, and what the server does with what arrives.

A run has a list of steps. Before a client trains, each step in turn may change what it starts from; after it,
each in turn may change what it sends. On the server what arrives goes through the same steps in reverse
order, so that what the last step packed is unpacked first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.client_steps.orders import Order
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate, Want
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.part_memory import NOTHING, ClientMemory, PartMemory
from fedtlu_fast.randomness import generator

Vectors = tuple[Tensor, Tensor]
"""Parameters [P] and buffers [Q], float32."""


@dataclass(frozen=True)
class RunFacts:
    """What every step of a run may know.

    Attributes:
        layout: of the model.
        seed: of the run.
        clients: in the federation.
        lr: learning rate of local training with SGD; 0 with another optimizer.
        momentum: of SGD.
        proximal_mu: FedProx's mu of local training.
        tokens: how many token ids there are; 0 where samples are not tokens.
        labels: how many labels there are; 0 where samples have none beside their tokens.
        backend: runs the kernels; see `layer_stats`.
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
        facts: of the run.
        number: the client's, from 0.
        round: which round, 1 for the first.
        params: [P], the global parameters; not to be changed.
        buffers: [Q], the global floating-point buffers; not to be changed.
        order: which blocks the client trains and sends; None: all of them.
        memory: what the step remembers of this client.
        server: what the step's half on the server tells the clients: its tensors named in `ClientStep.reads`.
        start: what the client's training started from; None before it.
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
        """Draws that depend on the run's seed, the purpose and this client.

        Args:
            purpose: tells these draws from all others of the client.
            every_round: whether they differ from round to round.
        """
        return generator(self.facts.seed, purpose, self.round if every_round else 0, self.number)


@dataclass(frozen=True)
class Arrival:
    """What arrives at the server: of one client, or of a lane of clients.

    Attributes:
        clients: their numbers.
        vectors: of one client its parameters [P] and buffers [Q]; of several the sum of their changes,
            ``sum_k weight_k (w_k - w)``.
        single: whether it is one client's own vectors.
        weight: what it counts in the mean.
    """

    clients: tuple[int, ...]
    vectors: Vectors
    single: bool
    weight: float


@dataclass(frozen=True)
class RoundChange:
    """What the rule made of a round's arrivals.

    Attributes:
        change: [P], the aggregated change of the parameters.
        buffers_change: [Q], that of the buffers.
        unsent: indices of the blocks that nobody sent and that therefore keep their values.
        empty: whether no client's change is in it.
        ordered: whether clients sent chosen blocks only.
        memory: what the step remembers anew of the round's clients, by client.
    """

    change: Tensor
    buffers_change: Tensor
    unsent: tuple[int, ...] = ()
    empty: bool = False
    ordered: bool = False
    memory: Mapping[int, ClientMemory] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerContext:
    """A round as the server's half of a step sees it.

    Attributes:
        facts: of the run.
        round: which round, 1 for the first.
        params: [P], the global parameters that the clients start from.
        buffers: [Q], the global buffers.
        cohort: the clients that train.
        memory: what the step remembers.
    """

    facts: RunFacts
    round: int
    params: Tensor
    buffers: Tensor
    cohort: tuple[int, ...] = ()
    memory: PartMemory = NOTHING


class ServerHalf:
    """The server's half of a step, for one round. This one lets everything pass.

    Attributes:
        server: the tensors that the step remembers on the server after this round; None: as before.
    """

    server: Mapping[str, Tensor] | None = None

    def receive(self, arrival: Arrival) -> Arrival | None:
        """What goes on of what arrives; None: nothing, or nothing yet."""
        return arrival

    def finish(self) -> Iterable[Arrival]:
        """What was held back and goes on when everything has arrived; unsound vectors are refused."""
        return ()

    def complete(self, aggregated: RoundChange) -> RoundChange:
        """What the server makes of the aggregated change before it is scored."""
        return aggregated


PASS = ServerHalf()


class ClientStep:
    """Base of what clients do around local training; a subclass is a frozen dataclass of its parameters.

    A step with a field `share` is for that share of the clients alone. Such steps take their clients from one
    shuffled order, one step after another, so that no client has two of them.

    Class attributes:
        changes: which of "samples", "blocks", "correction" and "second" of a `ClientStart` the hook `before`
            may change. Naming fewer lets more engines take the step.
        reads: names of the server's tensors that clients get (`ClientContext.server`).
        needs_each: whether the server's half has to see each client's vector on its own.

    Example:
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

    @property
    def name(self) -> str:
        """Under which name the step's memory is kept."""
        return type(self).__name__

    def check(self, facts: RunFacts) -> None:
        """Looks whether the step fits the run.

        Raises:
            InputError: it does not.
        """

    def own_model(self, client: ClientContext, vectors: Vectors) -> Vectors:
        """The model of the client's own that it starts, measures and is tested with.

        Args:
            client: with the step's memory of it.
            vectors: the global parameters and buffers, or what the step before made of them; not changed.
        """
        return vectors

    def tested_model(self, client: ClientContext, vectors: Vectors) -> Vectors:
        """The model of the client's own that its local tests are made with; else that of `own_model`."""
        return self.own_model(client, vectors)

    def before(self, client: ClientContext, start: ClientStart) -> ClientStart:
        """What the client starts from instead of `start`, whose tensors are not changed."""
        return start

    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        """What the client sends instead of `update`, whose tensors are not changed."""
        return update

    def server_half(self, server: ServerContext) -> ServerHalf:
        """The server's half of the step for one round."""
        return PASS


def does(step: ClientStep, hook: str) -> bool:
    """Whether a step has a hook of its own."""
    return getattr(type(step), hook) is not getattr(ClientStep, hook)


def wants(step: ClientStep) -> list[Want]:
    """What a step asks of the engine that trains the clients."""
    changes = step.changes if does(step, "before") else frozenset[str]()
    found: list[tuple[Want, bool]] = [
        ("each vector", step.needs_each),
        ("own model", does(step, "own_model")),
        ("blocks", "blocks" in changes),
        ("correction", "correction" in changes),
        ("second model", "second" in changes),
    ]
    return [want for want, wanted in found if wanted]
