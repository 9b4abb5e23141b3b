"""Takes the arrivals of a round through the steps' halves on the server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from fedtlu_fast.client_steps.client_round import StepMemories
from fedtlu_fast.client_steps.halves import FIELD, check_arrival, check_completed, check_held_back
from fedtlu_fast.client_steps.roles import Roles
from fedtlu_fast.client_steps.step import PASS, Arrival, RoundChange, ServerHalf, Vectors
from fedtlu_fast.own_draws import seeded_for
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.part_memory import Memory, part_of_step, recall, remember
from fedtlu_fast.remembered import server_tensors
from fedtlu_fast.unchanged import unchanged


class ServerRound:
    """The passage of a round's arrivals through the steps' halves on the server, last half first."""

    def __init__(
        self,
        names: Sequence[str],
        halves: Sequence[ServerHalf],
        roles: Roles,
        kept: Sequence[Mapping[str, Tensor]],
        vectors: Vectors,
        seed: int,
        round_index: int,
    ) -> None:
        """Takes the halves of one round.

        Args:
            names: the steps' names.
            halves: the steps' halves on the server.
            roles: the clients to which each step applies.
            kept: the tensors that each half must not change in place, by name.
            vectors: the global parameters [P] and buffers [Q].
            seed: the run's seed.
            round_index: the round, from 1.
        """
        self._seed, self._round = seed, round_index
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
                with seeded_for(half, self._seed, f"{FIELD}.{name}.complete", self._round):
                    completed = half.complete(given)
                aggregated = check_completed(half, given, completed)
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
                    purpose = f"{FIELD}.{self._names[place]}.receive"
                    with seeded_for(half, self._seed, purpose, self._round, going.clients[0]):
                        passed = half.receive(going)
                going = None if passed is None else check_arrival(half, "receive", passed, going.vectors)
        return going
