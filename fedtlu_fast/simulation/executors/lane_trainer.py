"""Training a lane in this process: one client after another, or many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedtlu_fast.aggregation import Aggregate, WeightedMean, aggregate
from fedtlu_fast.block_metrics import scored_layout, unit_norms
from fedtlu_fast.clients.compiled import CompiledTrainer
from fedtlu_fast.clients.training import ClientSum, LocalTrainer
from fedtlu_fast.clients.vectorized import CannotVectorizeError, ClientUpdates, VectorizedTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.ahead import AheadPopulation
from fedtlu_fast.data.population import Population, Samples, example_samples
from fedtlu_fast.simulation.client_errors import check_memory, reason_of
from fedtlu_fast.simulation.executors.lanes import ClientReports, Lane, LaneResult, Vectors
from fedtlu_fast.simulation.executors.ordered_trainer import OrderedTrainer
from fedtlu_fast.simulation.executors.orders import Orders
from fedtlu_fast.simulation.executors.patience import Watch
from fedtlu_fast.simulation.executors.probing import Prober
from fedtlu_fast.soundness import sound_rows
from fedtlu_fast.stats import layer_stats
from fedtlu_fast.threats import Spoiler

if TYPE_CHECKING:
    from fedtlu_fast.simulation.client_rule import ClientRule


class LaneTrainer:
    """Trains lanes one after another in the same memory."""

    def __init__(
        self, config: RunConfig, population: Population, trainer: LocalTrainer, watch: Watch | None = None
    ) -> None:
        """Makes the compiled or the vectorised trainer, if the settings want one.

        Args:
            config: of the run.
            population: who holds what.
            trainer: trains one client.
            watch: see `Watch`.

        Raises:
            CannotCompileError: see `CompiledTrainer`.
            CannotVectorizeError: see `VectorizedTrainer`.
        """
        self.config, self.population, self.trainer = config, population, trainer
        self.watch = watch or _nobody
        self._spoiler = Spoiler(config, trainer.layout)
        self._each: LocalTrainer | CompiledTrainer = trainer
        self._many: VectorizedTrainer | CompiledTrainer | None = None
        self._norms = config.selection.metric == "agreement"
        self._scored = scored_layout(trainer.layout, config.selection.scored_layers)
        self._rule: ClientRule | None = None
        if config.client_selection.selector == "drift":  # chosen here, when a client has trained
            # Imported late: a rule gives orders to executors, and so imports this package.
            from fedtlu_fast.simulation.client_rule import make_client_rule

            self._rule = make_client_rule(config, trainer.layout, trainer.task, population)
        self._ordered = OrderedTrainer(config, trainer)
        at_once = config.execution.at_once or 1
        parts = (trainer.task, trainer.layout, config.training, config.seed)
        example = example_samples(population)
        if config.execution.engine == "compiled":
            self._each = CompiledTrainer(*parts, example)
            # In one call only the clients' sum comes out, and not how long each change is.
            self._many = self._each if at_once > 1 and not self._norms else None
        elif at_once > 1:
            precision = config.execution.precision
            self._many = VectorizedTrainer(*parts, min(at_once, config.cohort), example, precision)

    def train(self, start: Vectors, lane: Lane, out: Vectors | None = None) -> LaneResult:
        """Trains the lane's clients from the global parameters and buffers, or has them probe.

        Args:
            start: global parameters [P] and buffers [Q]; not changed.
            lane: who trains.
            out: where the result's vectors go; None: into memory that the next lane uses again.

        Raises:
            ClientError: a client's training raised, and the settings say to stop.
        """
        reports = ClientReports()
        if isinstance(self.population, AheadPopulation):
            self.population.announce(lane.clients)
        try:
            if lane.probing:
                self._probe(start, lane, reports)
                return LaneResult(lane, (torch.empty(0), torch.empty(0)), False, reports)
            if self._many is None and len(lane.clients) == 1:
                return self._single(start, lane, reports, out)
            params, buffers = out or (None, None)
            means = (
                WeightedMean(start[0], self.config.backend, params),
                WeightedMean(start[1], self.config.backend, buffers),
            )
            if self._many is None:
                for client in lane.clients:
                    self._add_one(start, lane, client, means, reports)
            else:
                for group in self._groups(lane.clients):
                    if isinstance(self._many, CompiledTrainer) and self._spoiler.spoils(group[0]):
                        self._add_one(start, lane, group[0], means, reports)
                    else:
                        self._add_many(self._many, start, lane, group, means[0], reports)
        finally:
            self.watch(-1)
        return LaneResult(lane, (means[0].sum, means[1].sum), False, reports)

    def _groups(self, clients: Sequence[int]) -> Iterator[Sequence[int]]:
        """Those who train together: `at_once`, but of what C++ adds up, spoilers each for themselves."""
        size = self.config.execution.at_once or 1
        for first in range(0, len(clients), size):
            group = clients[first : first + size]
            if not isinstance(self._many, CompiledTrainer) or not self._spoiler.roles:
                yield group
                continue
            for spoils, run in groupby(group, self._spoiler.spoils):
                together = tuple(run)
                yield from ((client,) for client in together) if spoils else (together,)

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
        round_index = lane.round
        try:
            samples = self.population.train(client)
            if lane.orders is None:
                update = self._each.train(*start, samples, round_index, client)
            else:
                update = self._ordered.train(start, lane, lane.orders, client, samples, reports)
        except BaseException as error:
            self._failed(round_index, client, error, reports)
            return None
        if self._spoiler.spoils(client):
            self._spoiler.spoil_(update.params, start[0], round_index, client)
        if lane.orders is not None:
            self._send_(update.params, start[0], client, lane.orders, reports)
        # Of what is sent, whatever the client says of it; of what it does not send nobody knows.
        finite = update.is_sound(start[1])
        weight = lane.weight(update.samples)
        reports.add(client, update.samples, update.loss, finite, weight)
        if finite and self._norms:
            change = layer_stats(update.params - start[0], self.trainer.layout, backend=self.config.backend)
            reports.add_norms(weight * unit_norms(change, self._scored).numpy())
        return (update.params, update.buffers) if finite else None

    def _add_many(
        self,
        many: VectorizedTrainer | CompiledTrainer,
        start: Vectors,
        lane: Lane,
        clients: Sequence[int],
        mean: WeightedMean,
        reports: ClientReports,
    ) -> None:
        samples = []
        try:
            for client in clients:
                self.watch(client)
                samples.append(self.population.train(client))
            self.watch(-1, len(clients))
            found = self._train_many(many, start[0], samples, lane, clients, reports)
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
                    f"execution.at_once=1"
                ) from error
            return
        weights = [lane.weight(samples) for samples in found.samples]
        if any(found.finite):
            mean.add_sum_(found.change, sum(_of(weights, found.finite)))
        for row in zip(clients, found.samples, found.losses, found.finite, weights, strict=True):
            reports.add(*row)

    def _train_many(
        self,
        many: VectorizedTrainer | CompiledTrainer,
        start: Tensor,
        samples: Sequence[Samples],
        lane: Lane,
        clients: Sequence[int],
        reports: ClientReports,
    ) -> ClientSum:
        if isinstance(many, CompiledTrainer):
            return many.train_sum(start, samples, lane.round, clients, lane.largest)
        orders = lane.orders
        blocks = None if orders is None else [orders.trained[client] for client in clients]
        updates = many.train(start, samples, lane.round, clients, blocks)
        if self._spoiler.roles or orders is not None:
            for params, place in zip(updates.params, updates.clients, strict=True):
                self._spoiler.spoil_(params, start, lane.round, clients[place])
                if orders is not None:
                    self._send_(params, start, clients[place], orders, reports)
        return self._added(updates, start, lane, reports)

    def _send_(
        self, params: Tensor, start: Tensor, client: int, orders: Orders, reports: ClientReports
    ) -> None:
        """Puts what a client does not send back to where it started."""
        sent = orders.to_send(client)
        if orders.budgets is not None and self._rule is not None:
            sent = self._rule.after_training(params - start, orders.budgets[client], self.config.backend)
        if sent != orders.trained[client] or self._spoiler.spoils(client):
            layout = self.trainer.layout
            for run in layout.runs(set(range(len(layout.blocks))).difference(sent)):
                params[run] = start[run]
        reports.sent[client] = sent

    def _probe(self, start: Vectors, lane: Lane, reports: ClientReports) -> None:
        many = self._many if isinstance(self._many, VectorizedTrainer) else None
        prober = Prober(self.config, self.population, self.trainer, many, self.watch, self._ordered.part)
        prober.probe(
            start,
            lane.round,
            lane.clients,
            reports,
            lambda client, error: self._failed(lane.round, client, error, reports),
            lane.own,
        )

    def _added(self, found: ClientUpdates, base: Tensor, lane: Lane, reports: ClientReports) -> ClientSum:
        """Adds up the clients that are sound."""
        rows_sound = sound_rows(found.params)
        finite = [isfinite(loss) and row for loss, row in zip(found.losses, rows_sound, strict=True)]
        weights = [lane.weight(samples) for samples in found.samples]
        part = self._weighted(found, base, finite, weights)
        change = torch.zeros_like(base) if part is None else part.change
        rows = sorted(zip(found.clients, found.samples, found.losses, finite, strict=True))
        _, held, losses, sound = zip(*rows, strict=True)
        if part is not None and part.client_stats is not None:
            each = unit_norms(part.client_stats, self._scored).numpy()
            for weight, norms in zip(_of(weights, finite), each, strict=True):
                reports.add_norms(weight * norms)
        return ClientSum(change, list(held), list(losses), list(sound))

    def _weighted(
        self, found: ClientUpdates, base: Tensor, accepted: list[bool], weights: list[float]
    ) -> Aggregate | None:
        if not any(accepted):
            return None
        rows = found.params if all(accepted) else found.params[torch.tensor(accepted)]
        return aggregate(
            rows,
            _of(weights, accepted),
            self.trainer.layout,
            base=base,
            normalize=False,
            client_stats=self._norms,
            backend=self.config.backend,
        )

    def _failed(self, round_index: int, client: int, error: BaseException, reports: ClientReports) -> None:
        policy = self.config.execution.client_errors
        reports.fail(client, reason_of(client, round_index, error, policy))


def _nobody(client: int, together: int = 1) -> None:
    """A `Watch` that takes no notice."""


def _of(numbers: Sequence[float], chosen: Sequence[bool]) -> list[float]:
    return [number for number, wanted in zip(numbers, chosen, strict=True) if wanted]
