"""Clients' probes: what each measures of its gradient where it would start, before anybody trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.aggregation import aggregate
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import VectorizedTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Population
from fedtlu_fast.gradient_metrics import measure_gradients
from fedtlu_fast.memory import is_out_of_memory
from fedtlu_fast.simulation.client_errors import check_interrupt
from fedtlu_fast.simulation.executors.lanes import ClientReports, Own, Vectors
from fedtlu_fast.simulation.executors.patience import Watch
from fedtlu_fast.simulation.executors.personal import PersonalPart
from fedtlu_fast.stats import LayerStats, layer_stats

Gains = NDArray[np.float64]


class Prober:
    """Has clients probe, one after another or many at once, with the trainers that train them."""

    def __init__(
        self,
        config: RunConfig,
        population: Population,
        trainer: LocalTrainer,
        many: VectorizedTrainer | None,
        watch: Watch,
        part: PersonalPart | None = None,
    ) -> None:
        """Takes memory only while it probes.

        Args:
            config: of the run.
            population: who holds what.
            trainer: of one client.
            many: of many clients, if there is one.
            watch: see `Watch`.
            part: what clients keep for themselves; each then measures at its own model.
        """
        self._part = part
        self._config, self._population, self._watch = config, population, watch
        self._trainer, self._many, self._layout = trainer, many, trainer.layout
        self._size = (config.execution.at_once or 1) if many is not None else 1

    def probe(
        self,
        start: Vectors,
        round_index: int,
        clients: Sequence[int],
        reports: ClientReports,
        failed: Callable[[int, BaseException], None],
        own: Mapping[int, Own],
    ) -> None:
        """Reports every client's gains.

        Args:
            start: global parameters [P] and buffers [Q]; not changed.
            round_index: the round that is to come.
            clients: who probes.
            reports: where the gains go.
            failed: called for those whose probe raises; raises itself when memory is short.
            own: what clients keep, by number.
        """
        weights = self._weights(start)
        for first in range(0, len(clients), self._size):
            group = clients[first : first + self._size]
            if self._many is not None and len(group) > 1:
                try:
                    found = self._together(self._many, weights, start, round_index, group)
                    reports.gains |= dict(zip(group, found, strict=True))
                    continue
                except BaseException as error:
                    check_interrupt(error)
                    if is_out_of_memory(error):
                        failed(group[0], error)
                    # Else one of them is to blame, and fails again on its own.
            for client in group:
                try:
                    model, size = start, weights
                    if self._part is not None:
                        model = self._part.model_of(start, own.get(client))
                        size = self._weights(model)
                    reports.gains[client] = self._alone(size, model, round_index, client)
                except BaseException as error:
                    check_interrupt(error)
                    failed(client, error)

    def _alone(self, weights: LayerStats, start: Vectors, round_index: int, client: int) -> Gains:
        self._watch(client)
        samples = self._population.train(client)
        count = self._config.client_selection.probe_batches
        gradient = self._trainer.gradient(*start, samples, count, round_index, client)
        own: Gains = self._measured(weights, [gradient])[0]
        return own

    def _together(
        self,
        many: VectorizedTrainer,
        weights: LayerStats,
        start: Vectors,
        round_index: int,
        clients: Sequence[int],
    ) -> Gains:
        samples = []
        for client in clients:
            self._watch(client)
            samples.append(self._population.train(client))
        self._watch(-1, len(clients))
        count = self._config.client_selection.probe_batches
        return self._measured(weights, many.gradients(start[0], samples, count, round_index, clients))

    def _weights(self, model: Vectors) -> LayerStats:
        return layer_stats(model[0], self._layout, backend=self._config.backend)

    def _measured(self, weights: LayerStats, rows: Tensor | Sequence[Tensor]) -> Gains:
        """[K, B], from the gradients of K clients, each read once."""
        metric, backend = self._config.client_selection.gradient_metric, self._config.backend
        found = aggregate(rows, [1.0] * len(rows), self._layout, client_stats=True, backend=backend)
        if found.client_stats is None:
            raise RuntimeError("no statistics of clients, though they were asked for")
        return measure_gradients(metric, self._layout, found.client_stats, weights)
