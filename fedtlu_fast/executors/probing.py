"""Clients' probes: what each measures of its gradient where it would start, before any client trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.aggregation import aggregate
from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.clients.client_errors import check_interrupt
from fedtlu_fast.clients.trainer import ClientStart
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import VectorizedTrainer
from fedtlu_fast.executors.lanes import ClientReports
from fedtlu_fast.executors.patience import Watch
from fedtlu_fast.memory import is_out_of_memory
from fedtlu_fast.scoring import LayerStats, layer_stats
from fedtlu_fast.scoring.gradient_metrics import measure_gradients

Gains = NDArray[np.float64]


class Prober:
    """Has clients probe, one after another or many at once, with the trainers that train them."""

    def __init__(
        self,
        trainer: LocalTrainer,
        many: VectorizedTrainer | None = None,
        clients_per_batch: int = 1,
        *,
        metrics: Sequence[str] = (),
        batches: int = 1,
        backend: str = "auto",
    ) -> None:
        """Takes memory only while it probes.

        Args:
            trainer: of one client.
            many: of many clients, if there is one.
            clients_per_batch: how many clients `many` takes.
            metrics: what clients measure.
            batches: over how many batches, or as many as a client has.
            backend: who runs the kernels.
        """
        self._trainer, self._many, self._layout = trainer, many, trainer.layout
        self._size = 1 if many is None else clients_per_batch
        self._metrics, self._batches, self._backend = metrics, batches, backend

    def probe(
        self,
        model: Vectors,
        round_index: int,
        clients: Sequence[int],
        reports: ClientReports,
        start: Callable[[int], ClientStart],
        failed: Callable[[int, BaseException], None],
        watch: Watch,
    ) -> None:
        """Reports every client's gains.

        Args:
            model: global parameters [P] and buffers [Q]; not changed.
            round_index: the round that is to come.
            clients: the clients that probe.
            reports: where the gains go.
            start: gives what a client would start from.
            failed: called for a client whose probe raises; raises itself when memory is short.
            watch: see `Watch`.
        """
        weights = self._weights(model[0])
        for first in range(0, len(clients), self._size):
            group = clients[first : first + self._size]
            if self._many is not None and len(group) > 1:
                try:
                    starts = [start(client) for client in group]
                    watch(-1, len(group))
                    found = self._together(self._many, weights, starts, round_index, group)
                    reports.gains |= dict(zip(group, found, strict=True))
                    continue
                except BaseException as error:
                    check_interrupt(error)
                    if is_out_of_memory(error):
                        failed(group[0], error)
                    # Else one of them is to blame, and fails again on its own.
            for client in group:
                try:
                    own = start(client)
                    size = weights if own.params is model[0] else self._weights(own.params)
                    reports.gains[client] = self._alone(size, own, round_index, client)
                except BaseException as error:
                    check_interrupt(error)
                    failed(client, error)

    def _alone(self, weights: LayerStats, start: ClientStart, round_index: int, client: int) -> Gains:
        vectors = start.params, start.buffers
        gradient = self._trainer.gradient(*vectors, start.samples, self._batches, round_index, client)
        own: Gains = self._measured(weights, [gradient])[0]
        return own

    def _together(
        self,
        many: VectorizedTrainer,
        weights: LayerStats,
        starts: Sequence[ClientStart],
        round_index: int,
        clients: Sequence[int],
    ) -> Gains:
        samples = [start.samples for start in starts]
        gradients = many.gradients(starts[0].params, samples, self._batches, round_index, clients)
        return self._measured(weights, gradients)

    def _weights(self, params: Tensor) -> LayerStats:
        return layer_stats(params, self._layout, backend=self._backend)

    def _measured(self, weights: LayerStats, rows: Tensor | Sequence[Tensor]) -> Gains:
        """[K, M B], the metrics one after another, from the gradients of K clients, each read once."""
        shares = [1.0] * len(rows)
        found = aggregate(rows, shares, self._layout, client_stats=True, backend=self._backend)
        if found.client_stats is None:
            raise RuntimeError("no statistics of clients, though they were asked for")
        each = [
            measure_gradients(metric, self._layout, found.client_stats, weights) for metric in self._metrics
        ]
        return np.concatenate(each, axis=1)
