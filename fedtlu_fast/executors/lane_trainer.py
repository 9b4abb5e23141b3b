"""Training a lane in this process: one client after another, or many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from fedtlu_fast.aggregation import WeightedMean
from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.client_steps.client_round import ClientRound, StepMemories
from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.clients.client_errors import check_memory, reason_of
from fedtlu_fast.clients.trainer import (
    ClientStart,
    ClientSum,
    ClientUpdate,
    Finish,
    GroupTrainer,
    Looks,
    Trainer,
)
from fedtlu_fast.clients.vectorized import CannotVectorizeError
from fedtlu_fast.data.population import Population
from fedtlu_fast.executors.lanes import ClientReports, Lane, LaneResult
from fedtlu_fast.executors.patience import Watch
from fedtlu_fast.executors.probing import Prober
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring import layer_stats
from fedtlu_fast.scoring.client_values import places_in, read_at
from fedtlu_fast.scoring.units import unit_norms


@dataclass(frozen=True)
class Engines:
    """What trains the clients of a lane.

    Attributes:
        one: trains a client on its own.
        group: trains several clients in one call; None: clients are trained one after another.
        clients_per_batch: how many clients are trained in one call.
    """

    one: Trainer
    group: GroupTrainer | None = None
    clients_per_batch: int = 1


class LaneTrainer:
    """Trains lanes one after another in the same memory.

    Attributes:
        watch: learns what is being done.
        latest: the last result, the only one whose vectors are valid; None before the first lane.
    """

    latest: LaneResult | None = None

    def __init__(
        self,
        population: Population,
        layout: ParameterLayout,
        steps: ClientSteps,
        engines: Engines,
        prober: Prober,
        *,
        normed: ParameterLayout | None = None,
        with_stats: bool = False,
        valued: int | None = None,
        client_errors: Literal["stop", "drop"] = "stop",
        backend: str = "auto",
        announce: Callable[[Sequence[int]], None] | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Takes memory with the first lane.

        Args:
            population: says what each client holds.
            layout: of the model.
            steps: what clients do around training.
            engines: train the clients.
            prober: has clients measure their gradients.
            normed: the layout whose units' norms are reported of every client; None: none are.
            with_stats: whether the statistics of every client's change are reported.
            valued: the run's seed if values of every client's change are reported (`client_values`), or None.
            client_errors: whether a client that fails stops the run.
            backend: who runs the kernels.
            announce: called with the clients of every lane before they train.
            watch: see `Watch`.
        """
        self.population, self.layout, self.watch = population, layout, watch or _nobody
        self._steps, self._engines, self._prober = steps, engines, prober
        self._normed, self._client_errors, self._backend = normed, client_errors, backend
        self._announce, self._with_stats, self._valued = announce, with_stats, valued
        self._measures = normed is not None or with_stats
        group, self._looks = engines.group, self._measures or valued is not None
        if self._looks and group is not None and not group.shows_vectors:
            # In one call only the clients' sum comes out, and not how long each change is.
            group = None
        self._group, self._size = group, 1 if group is None else engines.clients_per_batch

    def train(self, start: Vectors, lane: Lane, out: Vectors | None = None) -> LaneResult:
        """Trains the lane's clients from the global parameters and buffers, or has them probe.

        It keeps the result as `latest`.

        Args:
            start: global parameters [P] and buffers [Q]; not changed.
            lane: which clients train.
            out: where the result's vectors go; None: into memory that the next lane uses again.

        Raises:
            ClientError: a client's training raised, and the settings say to stop.
        """
        self.latest = None
        self.latest = self._train(start, lane, out)
        return self.latest

    def _train(self, start: Vectors, lane: Lane, out: Vectors | None) -> LaneResult:
        reports = ClientReports()
        if self._announce is not None:
            self._announce(lane.clients)
        try:
            if lane.probing:
                self._probe(start, lane, reports)
                return LaneResult(lane, (torch.empty(0), torch.empty(0)), False, reports)
            if self._group is None and len(lane.clients) == 1:
                return self._single(start, lane, reports, out)
            params, buffers = out or (None, None)
            means = (
                WeightedMean(start[0], self._backend, params),
                WeightedMean(start[1], self._backend, buffers),
            )
            for group in self._groups(lane.clients):
                if self._group is None or self._alone(group[0]):
                    self._add_one(start, lane, group[0], means, reports)
                else:
                    self._add_many(self._group, start, lane, group, means[0], reports)
        finally:
            self.watch(-1)
        return LaneResult(lane, (means[0].sum, means[1].sum), False, reports)

    def _groups(self, clients: Sequence[int]) -> Iterator[Sequence[int]]:
        """The clients that train together; a client that cannot join others is on its own."""
        for first in range(0, len(clients), self._size):
            group = clients[first : first + self._size]
            if self._group is None or self._group.shows_vectors or not self._steps.steps:
                yield group
                continue
            for alone, run in groupby(group, self._alone):
                together = tuple(run)
                yield from ((client,) for client in together) if alone else (together,)

    def _alone(self, client: int) -> bool:
        """Whether a client cannot be trained with others: its vector is to be changed, and is not shown."""
        engine = self._group
        return engine is None or not (engine.shows_vectors or not self._steps.changes_updates(client))

    def _single(self, start: Vectors, lane: Lane, reports: ClientReports, out: Vectors | None) -> LaneResult:
        vectors = self._one(start, lane, lane.clients[0], reports)
        if vectors is None:
            return LaneResult(lane, out or start, True, reports)
        if out is not None:
            for place, vector in zip(out, vectors, strict=True):
                place.copy_(vector)
        return LaneResult(lane, out or vectors, True, reports)

    def _add_one(
        self,
        start: Vectors,
        lane: Lane,
        client: int,
        means: tuple[WeightedMean, WeightedMean],
        reports: ClientReports,
    ) -> None:
        vectors = self._one(start, lane, client, reports)
        if vectors is not None:
            for mean, vector in zip(means, vectors, strict=True):
                mean.add_(vector, reports.weights[-1])

    def _one(self, start: Vectors, lane: Lane, client: int, reports: ClientReports) -> Vectors | None:
        """The client's vectors, if they can be averaged in."""
        self.watch(client)
        client_round = self._client_round(start, lane, client)
        try:
            begin = client_round.before_training(self.population.train(client))
            update = self._engines.one.train_one(begin, lane.round, client)
            if self._steps.steps or update.samples > lane.largest:
                update = client_round.after_training(replace(update, weight=lane.weight(update.samples)))
        except BaseException as error:
            self._failed(lane.round, client, error, reports)
            return None
        _report(client, update, client_round.memory, reports)
        # Of what is sent, whatever the client says of it; of what it does not send nobody knows.
        finite = update.is_sound(start[1])
        reports.add(client, update.samples, update.loss, finite, update.counts)
        if finite and self._measures:
            change = layer_stats(update.params - start[0], self.layout, backend=self._backend)
            if self._normed is not None:
                reports.add_norms(update.counts * unit_norms(change, self._normed).numpy())
            if self._with_stats:
                reports.add_stats(client, change.cpu())
        places = self._places(lane)
        if finite and places is not None:
            reports.values[client] = read_at(places, update.params, start[0]).numpy()
        return (update.params, update.buffers) if finite else None

    def _add_many(
        self,
        engine: GroupTrainer,
        start: Vectors,
        lane: Lane,
        clients: Sequence[int],
        mean: WeightedMean,
        reports: ClientReports,
    ) -> None:
        if self._steps.steps:
            rounds = [self._client_round(start, lane, client) for client in clients]
        else:  # without steps all clients pass alike
            rounds = [self._client_round(start, lane, clients[0])] * len(clients)
        sent: dict[int, ClientUpdate] = {}
        finish: Finish | None = None
        if self._steps.steps:

            def finish(place: int, update: ClientUpdate) -> ClientUpdate:
                sent[place] = rounds[place].after_training(update)
                return sent[place]

        try:
            pairs = zip(rounds, clients, strict=True)
            starts = [self._start(client_round, client) for client_round, client in pairs]
            self.watch(-1, len(clients))
            looks = Looks(self._measures, self._places(lane))
            found = engine.train_group(starts, lane.round, clients, finish, lane.largest, looks)
        except BaseException as error:
            check_memory(error, f"{len(clients)} clients at once")
            # One of them is to blame: on its own it fails again, and the others do not.
            failed = len(reports.failed)
            for client in clients:
                vectors = self._one(start, lane, client, reports)
                if vectors is not None:
                    mean.add_(vectors[0], reports.weights[-1])
            if len(reports.failed) == failed:
                raise CannotVectorizeError(
                    f"{len(clients)} clients can be trained one after another, but not at once: {error}. Use "
                    f"execution.clients_per_batch=1"
                ) from error
            return
        for place, update in sent.items():
            _report(clients[place], update, rounds[place].memory, reports)
        self._add_sum(found, clients, mean, reports)

    def _add_sum(
        self, found: ClientSum, clients: Sequence[int], mean: WeightedMean, reports: ClientReports
    ) -> None:
        if found.stats is not None and self._normed is not None:
            each = unit_norms(found.stats, self._normed).numpy()
            for weight, norms in zip(found.stats_weights, each, strict=True):
                reports.add_norms(weight * norms)
        if any(found.finite):
            pairs = zip(found.weights, found.finite, strict=True)
            mean.add_sum_(found.change, sum(weight for weight, finite in pairs if finite))
        if found.stats is not None and self._with_stats:
            table = found.stats.cpu()
            for place, at in enumerate(found.stats_clients):
                reports.add_stats(clients[at], table.row(place))
        if found.values is not None:
            for at, values in zip(found.stats_clients, found.values.numpy(), strict=True):
                reports.values[clients[at]] = values
        rows = (found.samples, found.losses, found.finite, found.weights)
        for row in zip(clients, *rows, strict=True):
            reports.add(*row)

    def _places(self, lane: Lane) -> Tensor | None:
        """The places at which clients' changes are reported; None: at none."""
        return None if self._valued is None else places_in(self.layout, self._valued, lane.round)

    def _client_round(self, start: Vectors, lane: Lane, client: int) -> ClientRound:
        order = None if lane.orders is None else lane.orders.for_client(client)
        memory = lane.memory.get(client)
        return self._steps.on_client(start, lane.round, client, order, memory, lane.broadcast)

    def _start(self, client_round: ClientRound, client: int) -> ClientStart:
        self.watch(client)
        return client_round.before_training(self.population.train(client))

    def _probe(self, start: Vectors, lane: Lane, reports: ClientReports) -> None:
        self._prober.probe(
            start,
            lane.round,
            lane.clients,
            reports,
            lambda client: self._start(self._client_round(start, lane, client), client),
            lambda client, error: self._failed(lane.round, client, error, reports),
            self.watch,
        )

    def _failed(self, round_index: int, client: int, error: BaseException, reports: ClientReports) -> None:
        reports.fail(client, reason_of(client, round_index, error, self._client_errors))


def _report(client: int, update: ClientUpdate, memory: StepMemories, reports: ClientReports) -> None:
    if update.sent is not None:
        reports.sent[client] = update.sent
    if memory:
        reports.memory[client] = dict(memory)


def _nobody(client: int, together: int = 1) -> None:
    """A `Watch` that takes no notice."""
