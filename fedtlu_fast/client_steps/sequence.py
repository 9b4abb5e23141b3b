"""Runs the steps of a run in their order, for each client before and after its training and on the server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.client_steps.halves import (
    FIELD,
    check_arrival,
    check_completed,
    check_half,
    check_held_back,
)
from fedtlu_fast.client_steps.orders import Order
from fedtlu_fast.client_steps.returned import check_start, check_update, wrong_kind
from fedtlu_fast.client_steps.roles import Roles
from fedtlu_fast.client_steps.shared import given_to_client, given_to_server
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
from fedtlu_fast.errors import InputError
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.part_memory import ClientMemory, Memory, part_of_step, read_only, recall, remember
from fedtlu_fast.remembered import client_values, is_name, server_tensors
from fedtlu_fast.unchanged import unchanged

StepMemories = Mapping[str, ClientMemory]
"""The steps' memories of one client, by the step's name."""
Told = Mapping[str, Mapping[str, NDArray[np.float32]]]
"""The tensors that the server sends to all clients of a round, by the step's name."""


class ClientSteps:
    """The steps of a run.

    Attributes:
        steps: the steps, in their order.
        facts: facts about the run.
        roles: the clients to which each step with a share applies.
    """

    def __init__(self, steps: Iterable[ClientStep], facts: RunFacts) -> None:
        """Checks the steps and draws the clients to which each step with a share applies.

        Raises:
            InputError: a step does not fit the run, its name is no text, or the sum of the shares is above 1.
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
        """Whether the server has to see each client's vector separately."""
        return any(step.needs_each for step in self.steps)

    def of(self, client: int) -> list[int]:
        """Returns the places of the steps that this client takes."""
        return self.roles.of(client)

    def changes_updates(self, client: int) -> bool:
        """Tells whether a step changes the update that this client sends."""
        return any(does(self.steps[place], "after") for place in self.of(client))

    def struck(self, clients: Iterable[int]) -> list[int]:
        """Returns the clients, of these, to which a step with a share applies."""
        return [client for client in clients if self.roles.role(client) is not None]

    def with_own_model(self, memory: Memory) -> set[int]:
        """Returns the clients that have a model of their own."""
        return {client for name in self._keepers for client in recall(memory, part_of_step(name)).known()}

    def way(
        self,
        vectors: Vectors,
        round_index: int,
        client: int,
        order: Order | None = None,
        memory: StepMemories | None = None,
        told: Told | None = None,
    ) -> ClientWay:
        """Returns the passage of one client through the steps of a round.

        Args:
            vectors: the global parameters [P] and buffers [Q].
            round_index: the round, from 1.
            client: the client's number.
            order: the blocks that the client trains and sends; None: all blocks.
            memory: the steps' memories of the client.
            told: the tensors that the server sends to the clients.
        """
        if not self.steps:
            return ClientWay([], vectors)
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
                    memory=read_only(held.get(self.names[place], {})),
                    server=read_only(said.get(self.names[place], {})),
                ),
                self.names[place],
            )
            for place in self.of(client)
        ]
        return ClientWay(taken, vectors)

    def tested_model(self, vectors: Vectors, round_index: int, client: int, memory: Memory) -> Vectors:
        """Returns the model with which a client is tested."""
        return self.way(vectors, round_index, client, memory=self.memories(memory, client)).tested_model()

    def memories(self, memory: Memory, client: int) -> StepMemories:
        """Returns the steps' memories of one client."""
        found = {name: recall(memory, part_of_step(name)).of(client) for name in self.names}
        return {name: own for name, own in found.items() if own}

    def of_clients(self, memory: Memory, clients: Iterable[int]) -> dict[int, StepMemories]:
        """Returns the steps' memories of some clients, by client; clients without memories are left out."""
        found = {client: self.memories(memory, client) for client in clients}
        return {client: held for client, held in found.items() if held}

    def told(self, memory: Memory) -> Told:
        """Returns the tensors that the steps' halves on the server send to the clients of a round."""
        found: dict[str, dict[str, NDArray[np.float32]]] = {}
        for step, name in self._named():
            server = recall(memory, part_of_step(name)).server
            if own := {key: _array(server[key]) for key in step.reads if key in server}:
                found[name] = own
        return found

    def server(self, vectors: Vectors, round_index: int, cohort: Sequence[int], memory: Memory) -> ServerWay:
        """Returns the passage of a round's arrivals through the steps' halves on the server."""
        halves: list[ServerHalf] = []
        kept = []
        for step, name in self._named():
            held = recall(memory, part_of_step(name))
            context = ServerContext(self.facts, round_index, *vectors, tuple(cohort), held)
            kept.append(given_to_server(context))
            if not does(step, "server_half"):
                halves.append(PASS)
                continue
            with named_errors(FIELD, step), unchanged(FIELD, step, "server_half", kept[-1]):
                halves.append(check_half(step, step.server_half(context)))
        return ServerWay(self.names, halves, self.roles, kept, vectors)

    def _named(self) -> Iterator[tuple[ClientStep, str]]:
        return zip(self.steps, self.names, strict=True)


class ClientWay:
    """The passage of one client through the steps of a round.

    Attributes:
        memory: the steps' new memories of the client after `finish`, by the step's name.
    """

    def __init__(self, taken: list[tuple[ClientStep, ClientContext, str]], vectors: Vectors) -> None:
        self._taken, self._vectors = taken, vectors
        self._start: ClientStart | None = None
        self.memory: dict[str, ClientMemory] = {}

    def model(self) -> Vectors:
        """Returns the model with which the client starts."""
        model = self._vectors
        for step, context, name in self._taken:
            with unchanged(f"{FIELD}.{name}", step, "own_model", given_to_client(context, model)):
                model = step.own_model(context, model)
        return model

    def tested_model(self) -> Vectors:
        """Returns the model with which the client is tested."""
        model = self._vectors
        for step, context, name in self._taken:
            with unchanged(f"{FIELD}.{name}", step, "tested_model", given_to_client(context, model)):
                model = step.tested_model(context, model)
        return model

    def start(self, samples: Samples) -> ClientStart:
        """Returns the client's start after all steps.

        Raises:
            InputError: a step changed parameters or buffers in `before`, which only `own_model` may do.
        """
        start = ClientStart(*self.model(), samples)
        for step, context, name in self._taken:
            with unchanged(f"{FIELD}.{name}", step, "before", given_to_client(context, start=start)):
                changed = step.before(context, start)
            if not isinstance(changed, ClientStart):
                raise wrong_kind(name, "before", changed, "the ClientStart")
            check_start(name, step, start, changed, len(context.facts.layout.blocks))
            start = changed
        self._start = start
        return start

    def finish(self, update: ClientUpdate) -> ClientUpdate:
        """Returns the update that the client sends after all steps."""
        for step, context, name in self._taken:
            given = replace(update, memory={})
            with unchanged(f"{FIELD}.{name}", step, "after", given_to_client(context, start=self._start)):
                update = step.after(replace(context, start=self._start), given)
            check_update(name, given, update, len(context.facts.layout.blocks))
            if own := client_values(f"{FIELD}.{name}", update.memory):
                self.memory[name] = own
        return update


class ServerWay:
    """The passage of a round's arrivals through the steps' halves on the server, last half first."""

    def __init__(
        self,
        names: Sequence[str],
        halves: Sequence[ServerHalf],
        roles: Roles,
        kept: Sequence[Mapping[str, Tensor]],
        vectors: Vectors,
    ) -> None:
        """Takes the halves of one round.

        Args:
            names: the steps' names.
            halves: the steps' halves on the server.
            roles: the clients to which each step applies.
            kept: the tensors that each half must not change in place, by name.
            vectors: the global parameters [P] and buffers [Q].
        """
        self._names, self._halves, self._roles = names, halves, roles
        self._kept, self._vectors = kept, vectors

    def receive(self, arrival: Arrival) -> Arrival | None:
        """Returns the vectors that are passed on for an arrival; None: they are held back."""
        return self._through(arrival, len(self._halves))

    def finish(self) -> Iterator[Arrival]:
        """Yields the arrivals that were held back, after all clients have arrived."""
        for place in reversed(range(len(self._halves))):
            half = self._halves[place]
            with named_errors(FIELD, half), unchanged(FIELD, half, "finish", self._kept[place]):
                for held in check_held_back(half, half.finish()):
                    check_arrival(half, "finish", held, self._vectors)
                    arrival = self._through(held, place)
                    if arrival is not None:
                        yield arrival

    def complete(self, aggregated: RoundChange, news: Mapping[int, StepMemories]) -> RoundChange:
        """Returns the aggregated change after all halves.

        Args:
            aggregated: the result of the aggregation rule.
            news: the steps' new memories of the round's clients, by client.
        """
        for place in reversed(range(len(self._halves))):
            name, half = self._names[place], self._halves[place]
            own = {client: held[name] for client, held in news.items() if name in held}
            with named_errors(FIELD, half), unchanged(FIELD, half, "complete", self._kept[place]):
                given = replace(aggregated, memory=own)
                aggregated = check_completed(half, given, half.complete(given))
        return aggregated

    def remembered(self, memory: Memory, news: Mapping[int, StepMemories]) -> Memory:
        """Returns the memory of all parts after the round.

        Raises:
            InputError: a half remembers what checkpoints cannot hold, or clients remember values of
                different shapes or dtypes under one name.
        """
        for name, half in zip(self._names, self._halves, strict=True):
            own = {client: held[name] for client, held in news.items() if name in held}
            if half.server is None and not own:
                continue
            part = part_of_step(name)
            held = recall(memory, part)
            if own:
                held = held.with_clients(own, f"{FIELD}.{name}: memory")
            if half.server is not None:
                held = held.with_server(server_tensors(f"{FIELD}.{name}: server", half.server))
            memory = remember(memory, part, held)
        return memory

    def _through(self, arrival: Arrival, before: int) -> Arrival | None:
        """Passes an arrival through the halves before a place, of its clients' steps, last half first."""
        going: Arrival | None = arrival
        for place in reversed(range(before)):
            if going is None:
                return None
            half = self._halves[place]
            if half is not PASS and all(place in self._roles.of(client) for client in going.clients):
                with named_errors(FIELD, half), unchanged(FIELD, half, "receive", self._kept[place]):
                    passed = half.receive(going)
                going = None if passed is None else check_arrival(half, "receive", passed, going.vectors)
        return going


def _names(steps: Sequence[ClientStep]) -> tuple[str, ...]:
    """Returns the steps' names, all different; the second step of a name gets the number 2."""
    names: list[str] = []
    for step in steps:
        given: Any = step.name
        if not is_name(given):
            kind = type(step)
            raise InputError(f"{FIELD}: {kind.__module__}:{kind.__qualname__}.name", given, "a text")
        numbered = (f"{given}#{number}" for number in count(2))
        names.append(next(name for name in chain([given], numbered) if name not in names))
    return tuple(names)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.cpu().numpy()
    return found
