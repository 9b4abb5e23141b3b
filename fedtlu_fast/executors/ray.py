"""Workers on Ray: on this machine, or on every machine of a cluster.

Each worker is a Ray actor that builds the clients' data and the model once, from the settings, and keeps
them: data files have to be readable under the same path on every machine. A round's global vectors go into
Ray's object store once, where the workers of a machine read them in place; a lane comes back as one sum.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.client_steps.client_round import StepMemories
from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.data.population import as_tensor
from fedtlu_fast.errors import WorkerError
from fedtlu_fast.executors.crew import Done, Lost, Policy, train_in_order
from fedtlu_fast.executors.executor import LaneWork
from fedtlu_fast.executors.lanes import ClientReports, Lane, LaneResult
from fedtlu_fast.executors.patience import Sign, allowed
from fedtlu_fast.executors.ray_cluster import (
    FULL,
    FULL_MESSAGE,
    LOST,
    join,
    raised,
    ray,
    share_of_a_gpu,
    why_lost,
)
from fedtlu_fast.executors.recipe import Recipe
from fedtlu_fast.machine import cores

logger = logging.getLogger("fedtlu_fast")

SLOTS = 2
"""Lanes for each worker that are at work or wait for their turn: more would only fill the object store."""
PATIENCE = 60.0
"""Seconds after which waiting for a cluster without room is worth a word."""
ANSWER_SECONDS = 10.0
"""Seconds in which a worker has to say what it is doing, even when its machine is busy."""
IDLE = Sign(-1, 0, 0.0)
"""Of a worker that is not training a lane."""

Vector = NDArray[np.float32]


class RemoteTrainer:
    """What a worker's process holds; Ray calls the methods in threads, one of which trains."""

    def __init__(self) -> None:
        self._doing = IDLE

    def start(self, recipe: Recipe) -> str:
        """Builds data and model, and says how this process differs from the run's (`LaneWorker`)."""
        self._worker = recipe(self._watch)
        return self._worker.elsewhere

    def train(
        self, params: Vector, buffers: Vector, lane: Lane
    ) -> tuple[Vector, Vector, bool, ClientReports]:
        """Trains a lane from vectors that lie, read-only, in the object store; gives a `LaneResult`."""
        self._watch(-1)
        try:
            result = self._worker.train((params, buffers), lane)
        finally:
            self._doing = IDLE
        sums = [vector.cpu().numpy() for vector in result.vectors]
        return sums[0], sums[1], result.single, result.reports

    def doing(self) -> tuple[int, int, float]:
        """The last sign of life, and how many seconds ago it was."""
        client, together, stamp = self._doing
        return client, together, time.monotonic() - stamp

    def _watch(self, client: int, together: int = 1) -> None:
        self._doing = Sign(client, together, time.monotonic())


@dataclass
class _Worker:
    """One actor as its caller sees it.

    Attributes:
        actor: Ray's handle.
        task: the answer it owes, first that it has started, then lanes; None: it is idle.
        lane: the one in training.
    """

    actor: Any
    task: Any
    lane: Lane | None = None


class RayExecutor:
    """A number of Ray actors, each with its data and its model."""

    def __init__(self, work: LaneWork, policy: Policy, workers: int | None, address: str) -> None:
        """Starts or joins Ray, unless the process has done so; actors start with the first round.

        Args:
            work: the recipe and the facts of the run.
            policy: what to do about lost workers and slow clients.
            workers: the number of actors; None: as many as the cluster has CPUs, for device cuda GPUs, and
                more from the next round on when machines join it. Actors that the cluster has no room for
                wait until it has.
            address: the cluster; see `join`.

        Raises:
            BackendUnavailableError: No cluster answers at this address, or Ray cannot be started.
        """
        self._recipe, self._policy = work.recipe, policy
        self._told: set[str] = set()
        self._owned = not ray.is_initialized()
        if self._owned:
            join(address, min(workers or cores(), work.cohort))
        self._kind = "CPU" if work.device == "cpu" else "GPU"
        self._asked, self._cohort = workers, work.cohort
        units = self._units()
        self._count = min(workers or units, work.cohort)
        self._make = ray.remote(RemoteTrainer).options(
            num_cpus=1,
            num_gpus=share_of_a_gpu(self._count, units) if self._kind == "GPU" else 0,
            max_concurrency=2,  # one trains, one tells what it is doing
        )
        self._workers: dict[int, _Worker] = {}
        self._start: tuple[Any, ...] = ()
        self._held = self._failed_starts = 0

    def train(self, start: Vectors, lanes: Sequence[Lane]) -> Iterator[LaneResult]:
        """See `Executor`."""
        if not lanes:
            return iter(())
        try:
            self._start = tuple(ray.put(vector.cpu().numpy()) for vector in start)
        except FULL as error:
            raise WorkerError(FULL_MESSAGE) from error
        self._held = 0
        if self._asked is None:
            # Machines may have joined. Where some have left, their actors wait for others to come.
            self._count = max(self._count, min(self._units(), self._cohort))
        for index in range(min(self._count, len(lanes))):
            # Not started yet, or left over from a round broken off.
            if index not in self._workers or self._workers[index].lane is not None:
                self.replace(index)
        self._await_first()
        return train_in_order(self, lanes, self._policy)

    def close(self) -> None:
        """See `Executor`; Ray is left only if it was joined here."""
        for index in list(self._workers):
            self._end(index)
        self._start = ()
        if self._owned:
            ray.shutdown()

    def idle(self) -> list[int]:
        """See `Crew`."""
        room = SLOTS * self._count - self._held - len(self._busy())
        return [index for index, worker in self._workers.items() if worker.task is None][: max(0, room)]

    def give(self, worker: int, lane: Lane) -> None:
        """See `Crew`."""
        own = self._workers[worker]
        own.lane, own.task = lane, own.actor.train.remote(*self._start, lane)

    def wait(self) -> list[Done | Lost]:
        """See `Crew`; nothing may have happened after a while."""
        limit = self._policy.client_seconds
        tasks = {own.task: index for index, own in self._workers.items() if own.task is not None}
        ready, _ = ray.wait(list(tasks), timeout=PATIENCE if limit is None else min(1.0, limit / 4))
        if ready:
            event = self._event(tasks[ready[0]])
            return [] if event is None else [event]
        return [] if limit is None else self._hung(limit)

    def release(self, result: LaneResult) -> None:
        """See `Crew`."""
        self._held -= 1

    def replace(self, worker: int) -> None:
        """See `Crew`."""
        self._end(worker)
        actor = self._make.remote()
        self._workers[worker] = _Worker(actor, actor.start.remote(self._recipe))

    def _units(self) -> int:
        """Returns the number of the cluster's CPUs, or GPUs, at least 1."""
        return int(ray.cluster_resources().get(self._kind, 0)) or 1

    def _busy(self) -> dict[int, _Worker]:
        return {index: worker for index, worker in self._workers.items() if worker.lane is not None}

    def _event(self, index: int) -> Done | Lost | None:
        """What a worker's answer means; None: it has started, or another is starting."""
        worker = self._workers[index]
        task, lane = worker.task, worker.lane
        worker.task = worker.lane = None
        try:
            answer = ray.get(task)
        except LOST as error:
            if lane is not None:
                return Lost(index, why_lost(error))
            self._failed_start(index, why_lost(error))
            return None
        except FULL as error:
            raise WorkerError(FULL_MESSAGE) from error
        except raised.RayTaskError as error:
            raise (error.cause or error) from error
        if lane is None:
            self._started(answer)
            return None
        params, buffers, single, reports = answer
        # They outlive the round, and as views they would hold the lane's vectors in the object store.
        reports.memory = {client: _copied(own) for client, own in reports.memory.items()}
        reports.gains = {client: gains.copy() for client, gains in reports.gains.items()}
        vectors = as_tensor(params), as_tensor(buffers)
        self._held += 1
        return Done(index, LaneResult(lane, vectors, single, reports))

    def _started(self, elsewhere: str) -> None:
        self._failed_starts = 0
        if elsewhere and elsewhere not in self._told:
            self._told.add(elsewhere)
            logger.warning("a worker runs elsewhere; last bits may differ: %s", elsewhere)

    def _failed_start(self, worker: int, reason: str) -> None:
        self._end(worker)
        self._failed_starts += 1
        if self._failed_starts > self._policy.retries:
            raise WorkerError(
                f"Ray workers do not survive building data and model ({self._failed_starts} lost): {reason}. "
                f"If memory is short, use fewer execution.workers"
            )
        logger.warning("a worker was lost while it started (%s); another is started", reason)
        self.replace(worker)

    def _await_first(self) -> None:
        """Waits until one worker at least has started; the others may follow."""
        tasks = [worker.task for worker in self._workers.values()]
        while None not in tasks and not ray.wait(tasks, timeout=PATIENCE)[0]:
            logger.warning("no worker has started in %d s: the Ray cluster may have no room", PATIENCE)

    def _hung(self, limit: float) -> list[Done | Lost]:
        """Those that are at one client for too long, or do not even say so."""
        asked = {worker.actor.doing.remote(): index for index, worker in self._busy().items()}
        if not asked:
            return []
        patience = max(limit, ANSWER_SECONDS)
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=patience)
        late: list[Done | Lost] = [Lost(asked[ref], f"it was silent for {patience:g} s") for ref in silent]
        for ref in answered:
            with suppress(raised.RayError):  # it died; its lane will tell
                client, together, seconds = ray.get(ref)
                if together and seconds > allowed(limit, client, together):
                    late.append(_too_late(asked[ref], client, f"execution.client_seconds={limit:g}"))
        return late

    def _end(self, index: int) -> None:
        if index in self._workers:
            ray.kill(self._workers.pop(index).actor)


def _copied(memory: StepMemories) -> StepMemories:
    return {
        step: {
            name: np.copy(value) if isinstance(value, np.ndarray) else value for name, value in own.items()
        }
        for step, own in memory.items()
    }


def _too_late(worker: int, client: int, limit: str) -> Lost:
    if client >= 0:
        return Lost(worker, f"it trained for more than {limit}", client, hung=True)
    return Lost(worker, f"it gave no sign of life for longer than {limit} allows")
