"""The steps of a run in their order, for each client (`ClientRound`) and on the server (`ServerRound`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.client_steps.client_round import ClientRound, StepMemories
from fedtlu_fast.client_steps.halves import FIELD, check_half
from fedtlu_fast.client_steps.messages import MessageBytes
from fedtlu_fast.client_steps.orders import Order
from fedtlu_fast.client_steps.roles import Roles
from fedtlu_fast.client_steps.server_round import ServerRound
from fedtlu_fast.client_steps.shared import given_to_server
from fedtlu_fast.client_steps.step import (
    PASS,
    ClientContext,
    ClientStep,
    RunFacts,
    ServerContext,
    ServerHalf,
    Vectors,
    does,
)
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.errors import InputError
from fedtlu_fast.own_draws import seeded_for
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.part_memory import Memory, part_of_step, read_only, recall
from fedtlu_fast.remembered import is_name
from fedtlu_fast.unchanged import unchanged

Broadcast = Mapping[str, Mapping[str, NDArray[np.float32]]]
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
        self._bytes = MessageBytes(self.steps, facts.layout)
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

    def message_bytes(self, client: int, blocks: Blocks) -> int:
        """Returns the number of bytes in which a client sends the parameters of these blocks."""
        return self._bytes.of(self.of(client), blocks)

    def struck(self, clients: Iterable[int]) -> list[int]:
        """Returns the clients, of these, to which a step with a share applies."""
        return [client for client in clients if self.roles.role(client) is not None]

    def with_own_model(self, memory: Memory) -> set[int]:
        """Returns the clients that have a model of their own."""
        return {client for name in self._keepers for client in recall(memory, part_of_step(name)).known()}

    def on_client(
        self,
        vectors: Vectors,
        round_index: int,
        client: int,
        order: Order | None = None,
        memory: StepMemories | None = None,
        broadcast: Broadcast | None = None,
    ) -> ClientRound:
        """Returns the passage of one client through the steps of a round.

        Args:
            vectors: the global parameters [P] and buffers [Q].
            round_index: the round, from 1.
            client: the client's number.
            order: the blocks that the client trains and sends; None: all blocks.
            memory: the steps' memories of the client.
            broadcast: the tensors that the server sends to the clients.
        """
        if not self.steps:
            return ClientRound([], vectors)
        held, received = memory or {}, broadcast or {}
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
                    server=read_only(received.get(self.names[place], {})),
                ),
                self.names[place],
            )
            for place in self.of(client)
        ]
        return ClientRound(taken, vectors)

    def tested_model(self, vectors: Vectors, round_index: int, client: int, memory: Memory) -> Vectors:
        """Returns the model with which a client is tested."""
        return self.on_client(
            vectors, round_index, client, memory=self.memories(memory, client)
        ).tested_model()

    def memories(self, memory: Memory, client: int) -> StepMemories:
        """Returns the steps' memories of one client."""
        found = {name: recall(memory, part_of_step(name)).of(client) for name in self.names}
        return {name: own for name, own in found.items() if own}

    def of_clients(self, memory: Memory, clients: Iterable[int]) -> dict[int, StepMemories]:
        """Returns the steps' memories of some clients, by client; clients without memories are left out."""
        if not self.steps:
            return {}
        found = {client: self.memories(memory, client) for client in clients}
        return {client: held for client, held in found.items() if held}

    def broadcast(self, memory: Memory) -> Broadcast:
        """Returns the tensors that the steps' halves on the server send to the clients of a round."""
        found: dict[str, dict[str, NDArray[np.float32]]] = {}
        for step, name in self._named():
            server = recall(memory, part_of_step(name)).server
            if own := {key: _array(server[key]) for key in step.reads if key in server}:
                found[name] = own
        return found

    def on_server(
        self,
        vectors: Vectors,
        round_index: int,
        cohort: Sequence[int],
        memory: Memory,
        drawn: Sequence[int] | None = None,
    ) -> ServerRound:
        """Returns the passage of a round's arrivals through the steps' halves on the server.

        Args:
            vectors: the global parameters [P] and buffers [Q].
            round_index: the round, from 1.
            cohort: the clients that train.
            memory: the memory of all parts of the run.
            drawn: the clients that the server drew; None: the cohort.
        """
        every = tuple(cohort if drawn is None else drawn)
        halves: list[ServerHalf] = []
        kept = []
        for step, name in self._named():
            held = recall(memory, part_of_step(name))
            context = ServerContext(self.facts, round_index, *vectors, tuple(cohort), held, every)
            kept.append(given_to_server(context))
            if not does(step, "server_half"):
                halves.append(PASS)
                continue
            with named_errors(FIELD, step), unchanged(FIELD, step, "server_half", kept[-1]):
                with seeded_for(step, self.facts.seed, f"{FIELD}.{name}.server_half", round_index):
                    half = step.server_half(context)
                halves.append(check_half(step, half))
        return ServerRound(self.names, halves, self.roles, kept, vectors, self.facts.seed, round_index)

    def _named(self) -> Iterator[tuple[ClientStep, str]]:
        return zip(self.steps, self.names, strict=True)


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
