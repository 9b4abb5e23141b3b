"""The steps of a run in their order: the way of a client, and of what arrives at the server, through them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.client_steps.orders import Order
from fedtlu_fast.client_steps.returned import check_start, check_update, wrong_kind
from fedtlu_fast.client_steps.roles import Roles
from fedtlu_fast.client_steps.step import (
    PASS,
    Arrival,
    ClientContext,
    ClientStep,
    RoundChange,
    RunFacts,
    ServerContext,
    ServerHalf,
    Vectors,
    does,
)
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.data.population import Samples
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.part_memory import ClientMemory, Memory, recall, remember

FIELD = "client_steps"
"""The setting that errors of a step's half on the server name."""
StepMemories = Mapping[str, ClientMemory]
"""What the steps remember of one client, by the step's name."""
Told = Mapping[str, Mapping[str, NDArray[np.float32]]]
"""What the server tells all clients of a round, by the step's name."""


class ClientSteps:
    """The steps of a run.

    Attributes:
        steps: in their order.
        facts: of the run.
        roles: which clients a step with a share is for.
    """

    def __init__(self, steps: Iterable[ClientStep], facts: RunFacts) -> None:
        """Draws which clients a step with a share is for.

        Raises:
            InputError: a step does not fit the run, or the shares are more than all clients.
        """
        self.steps, self.facts = tuple(steps), facts
        for step in self.steps:
            step.check(facts)
        self.names = _names(self.steps)
        self.roles = Roles([getattr(step, "share", None) for step in self.steps], facts.clients, facts.seed)
        keeping = ("own_model", "tested_model")
        self._keepers = [name for step, name in self._named() if any(does(step, hook) for hook in keeping)]

    @property
    def needs_each(self) -> bool:
        """Whether the server has to see each client's vector on its own."""
        return any(step.needs_each for step in self.steps)

    def of(self, client: int) -> list[int]:
        """Places of the steps that this client takes."""
        return self.roles.of(client)

    def changes_updates(self, client: int) -> bool:
        """Whether a step changes what this client sends."""
        return any(does(self.steps[place], "after") for place in self.of(client))

    def struck(self, clients: Iterable[int]) -> list[int]:
        """The clients of these that a step with a share is for."""
        return [client for client in clients if self.roles.role(client) is not None]

    def with_own_model(self, memory: Memory) -> set[int]:
        """The clients that have a model of their own."""
        return {client for name in self._keepers for client in recall(memory, name).known()}

    def way(
        self,
        vectors: Vectors,
        round_index: int,
        client: int,
        order: Order | None = None,
        memory: StepMemories | None = None,
        told: Told | None = None,
    ) -> ClientWay:
        """One client's way through the steps of a round."""
        held, said = memory or {}, told or {}
        taken = [
            (
                self.steps[place],
                ClientContext(
                    facts=self.facts,
                    number=client,
                    round=round_index,
                    params=vectors[0],
                    buffers=vectors[1],
                    order=order,
                    memory=held.get(self.names[place], {}),
                    server=said.get(self.names[place], {}),
                ),
                self.names[place],
            )
            for place in self.of(client)
        ]
        return ClientWay(taken, vectors)

    def tested_model(self, vectors: Vectors, round_index: int, client: int, memory: Memory) -> Vectors:
        """The model that a client is tested with."""
        return self.way(vectors, round_index, client, memory=self.memories(memory, client)).tested_model()

    def memories(self, memory: Memory, client: int) -> StepMemories:
        """What the steps remember of one client."""
        found = {name: recall(memory, name).of(client) for name in self.names if name in memory}
        return {name: own for name, own in found.items() if own}

    def of_clients(self, memory: Memory, clients: Iterable[int]) -> dict[int, StepMemories]:
        """What the steps remember of some clients, by client; of the others they remember nothing."""
        found = {client: self.memories(memory, client) for client in clients}
        return {client: held for client, held in found.items() if held}

    def told(self, memory: Memory) -> Told:
        """What the steps' halves on the server tell the clients of a round."""
        found: dict[str, dict[str, NDArray[np.float32]]] = {}
        for step, name in self._named():
            server = recall(memory, name).server
            if own := {key: _array(server[key]) for key in step.reads if key in server}:
                found[name] = own
        return found

    def server(self, vectors: Vectors, round_index: int, cohort: Sequence[int], memory: Memory) -> ServerWay:
        """The way of a round's arrivals through the steps' halves on the server."""
        halves: list[ServerHalf] = []
        for step, name in self._named():
            if not does(step, "server_half"):
                halves.append(PASS)
                continue
            context = ServerContext(self.facts, round_index, *vectors, tuple(cohort), recall(memory, name))
            with named_errors(FIELD, step):
                halves.append(step.server_half(context))
        return ServerWay(self.names, halves, self.roles)

    def _named(self) -> Iterator[tuple[ClientStep, str]]:
        return zip(self.steps, self.names, strict=True)


class ClientWay:
    """One client's way through the steps of a round.

    Attributes:
        memory: what the steps remember of the client after `finish`, by the step's name.
    """

    def __init__(self, taken: list[tuple[ClientStep, ClientContext, str]], vectors: Vectors) -> None:
        self._taken, self._vectors = taken, vectors
        self._start: ClientStart | None = None
        self.memory: dict[str, ClientMemory] = {}

    def model(self) -> Vectors:
        """The model that the client starts from."""
        model = self._vectors
        for step, context, _ in self._taken:
            model = step.own_model(context, model)
        return model

    def tested_model(self) -> Vectors:
        """The model that the client is tested with."""
        model = self._vectors
        for step, context, _ in self._taken:
            model = step.tested_model(context, model)
        return model

    def start(self, samples: Samples) -> ClientStart:
        """What the client starts from.

        Raises:
            InputError: a step changed the parameters or the buffers, which is `own_model`'s to do.
        """
        start = ClientStart(*self.model(), samples)
        for step, context, name in self._taken:
            changed = step.before(context, start)
            if not isinstance(changed, ClientStart):
                raise wrong_kind(name, "before", changed, "the ClientStart")
            check_start(name, step, start, changed)
            start = changed
        self._start = start
        return start

    def finish(self, update: ClientUpdate) -> ClientUpdate:
        """What the client sends."""
        for step, context, name in self._taken:
            given = replace(update, memory={})
            update = step.after(replace(context, start=self._start), given)
            check_update(name, given, update)
            if update.memory:
                self.memory[name] = update.memory
        return update


class ServerWay:
    """The way of a round's arrivals through the steps' halves on the server, from the last to the first."""

    def __init__(self, names: Sequence[str], halves: Sequence[ServerHalf], roles: Roles) -> None:
        self._names, self._halves, self._roles = names, halves, roles

    def receive(self, arrival: Arrival) -> Arrival | None:
        """What goes on of what arrives; None: it is held back."""
        return self._through(arrival, len(self._halves))

    def finish(self) -> Iterator[Arrival]:
        """What was held back, once everything has arrived."""
        for place in reversed(range(len(self._halves))):
            half = self._halves[place]
            with named_errors(FIELD, half):
                for held in half.finish():
                    arrival = self._through(held, place)
                    if arrival is not None:
                        yield arrival

    def complete(self, aggregated: RoundChange, news: Mapping[int, StepMemories]) -> RoundChange:
        """What the server makes of the aggregated change.

        Args:
            aggregated: what the rule made.
            news: what the steps remember anew of the round's clients, by client.
        """
        for name, half in zip(reversed(self._names), reversed(self._halves), strict=True):
            own = {client: held[name] for client, held in news.items() if name in held}
            with named_errors(FIELD, half):
                aggregated = half.complete(replace(aggregated, memory=own))
        return aggregated

    def remembered(self, memory: Memory, news: Mapping[int, StepMemories]) -> Memory:
        """What all parts remember after the round."""
        for name, half in zip(self._names, self._halves, strict=True):
            own = {client: held[name] for client, held in news.items() if name in held}
            if half.server is None and not own:
                continue
            held = recall(memory, name).with_clients(own) if own else recall(memory, name)
            memory = remember(memory, name, held if half.server is None else held.with_server(half.server))
        return memory

    def _through(self, arrival: Arrival, before: int) -> Arrival | None:
        """Through the halves before a place, from the last to the first, of steps that its clients take."""
        going: Arrival | None = arrival
        for place in reversed(range(before)):
            if going is None:
                return None
            half = self._halves[place]
            if half is not PASS and all(place in self._roles.of(client) for client in going.clients):
                with named_errors(FIELD, half):
                    going = half.receive(going)
        return going


def _names(steps: Sequence[ClientStep]) -> tuple[str, ...]:
    """The steps' names; a second step of one name gets a number."""
    names: list[str] = []
    for step in steps:
        again = sum(name.partition("#")[0] == step.name for name in names)
        names.append(f"{step.name}#{again + 1}" if again else step.name)
    return tuple(names)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.cpu().numpy()
    return found
