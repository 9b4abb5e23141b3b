"""Workers on Ray: on this machine, or on every machine of a cluster.

Each worker is a Ray actor that builds the clients' data and the model once, from the settings, and keeps
them: data files have to be readable under the same path on every machine. A round's global vectors go into
Ray's object store once, where the workers of a machine read them in place; a lane comes back as one sum.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.client_steps.sequence import StepMemories
from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.config import ExecutionConfig
from fedtlu_fast.data.population import as_tensor
from fedtlu_fast.environment import differences
from fedtlu_fast.errors import BackendUnavailableError, InputError, WorkerError
from fedtlu_fast.executors.crew import Done, Lost, train_in_order
from fedtlu_fast.executors.lanes import ClientReports, Lane, LaneResult
from fedtlu_fast.executors.patience import Sign, allowed
from fedtlu_fast.executors.recipe import Made, Recipe
from fedtlu_fast.machine import cores
from fedtlu_fast.torch_state import own_state

# Read while Ray is imported. Else it would print to stdout what we warn of, and report to its makers.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
    from ray import exceptions as raised
except ImportError as error:
    raise BackendUnavailableError(
        f"executor ray: Ray cannot be imported ({error}). Install it: pip install 'fedtlu-fast[ray]'"
    ) from error

logger = logging.getLogger("fedtlu_fast")

LOST = (raised.RayActorError, raised.ObjectLostError, raised.NodeDiedError, raised.OutOfMemoryError)
"""The worker, or the result that lay on its machine, is gone."""
FULL = (raised.ObjectStoreFullError, raised.OutOfDiskError)
FULL_MESSAGE = (
    "Ray's object store is full, and the disk too that it spills to. Free disk space, use fewer "
    "execution.workers, or start a Ray with more (ray start --head --object-store-memory=BYTES) for "
    "executor=ray:auto"
)
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

    def start(self, recipe: Recipe) -> Made:
        """Builds data and model, and says of what kind they are."""
        with own_state(threads=1):
            self._trainer, made = recipe(self._watch)
        self._device = made.device
        return made

    def train(
        self, params: Vector, buffers: Vector, lane: Lane
    ) -> tuple[Vector, Vector, bool, ClientReports]:
        """Trains a lane from vectors that lie, read-only, in the object store; gives a `LaneResult`."""
        self._watch(-1)
        try:
            with own_state(threads=1):
                start = as_tensor(params).to(self._device), as_tensor(buffers).to(self._device)
                result = self._trainer.train(start, lane)
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

    def __init__(
        self, recipe: Recipe, made: Made, execution: ExecutionConfig, cohort: int, source: str, address: str
    ) -> None:
        """Starts or joins Ray, unless the process has done so; actors start with the first round.

        Args:
            recipe: builds in every worker what trains there.
            made: what every worker has to build alike.
            execution: without `workers` there are as many as the cluster has CPUs, for device cuda GPUs;
                workers that it has no room for wait until it has.
            cohort: clients of a round; more workers are of no use.
            source: of the data, for messages.
            address: ``host:port`` of a cluster, ``auto`` for the one of this machine, empty to start Ray.

        Raises:
            BackendUnavailableError: no cluster answers at this address, or Ray cannot be started.
        """
        self._recipe, self._made, self._execution, self._source = recipe, made, execution, source
        self._device = made.device
        self._told: set[str] = set()
        self._owned = not ray.is_initialized()
        if self._owned:
            _join(address, min(execution.workers or cores(), cohort))
        kind = "CPU" if made.device == "cpu" else "GPU"
        units = int(ray.cluster_resources().get(kind, 0)) or 1
        self._count = min(execution.workers or units, cohort)
        self._make = ray.remote(RemoteTrainer).options(
            num_cpus=1,
            num_gpus=_share(self._count, units) if kind == "GPU" else 0,
            max_concurrency=2,  # one trains, one tells what it is doing
        )
        self._workers: dict[int, _Worker] = {}
        self._start: tuple[Any, ...] = ()
        self._held = self._failed_starts = 0

    def train(self, start: Vectors, lanes: Sequence[Lane]) -> Iterator[LaneResult]:
        """See `Executor`."""
        try:
            self._start = tuple(ray.put(vector.cpu().numpy()) for vector in start)
        except FULL as error:
            raise WorkerError(FULL_MESSAGE) from error
        self._held = 0
        for index in range(min(self._count, len(lanes))):
            # Not started yet, or left over from a round broken off.
            if index not in self._workers or self._workers[index].lane is not None:
                self.replace(index)
        self._await_first()
        return train_in_order(self, lanes, self._execution)

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
        limit = self._execution.client_seconds
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
                return Lost(index, _why(error))
            self._failed_start(index, _why(error))
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
        vectors = as_tensor(params).to(self._device), as_tensor(buffers).to(self._device)
        self._held += 1
        return Done(index, LaneResult(lane, vectors, single, reports))

    def _started(self, made: Made) -> None:
        self._failed_starts = 0
        different = differences(made.facts, self._made.facts, "there")
        if (made.layout, made.fingerprint) != (self._made.layout, self._made.fingerprint):
            expected = "the same data on every machine"
            raise InputError(
                "data.source",
                self._source,
                f"{expected}: {different}" if different else expected,
            )
        if different and different not in self._told:
            self._told.add(different)
            logger.warning("a worker runs elsewhere; last bits may differ: %s", different)

    def _failed_start(self, worker: int, reason: str) -> None:
        self._end(worker)
        self._failed_starts += 1
        if self._failed_starts > self._execution.retries:
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


def _join(address: str, cpus: int) -> None:
    cluster = {"address": address} if address else {"address": "local", "num_cpus": cpus}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address not in ("", "auto"):
            # Ray itself takes two minutes to find that nobody answers, and then ends the process.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(**cluster, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"no cluster answers at {address}" if address else "it cannot be started here"
        raise BackendUnavailableError(
            f"executor ray: {problem} ({error}). Use ray:HOST:PORT of a running cluster, ray:auto for this "
            f"machine's, or ray to start one"
        ) from error
    finally:
        # Ray's own ends what it has started; a caller's may do better.
        if handler not in (None, signal.SIG_DFL, signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, handler)


def _share(workers: int, gpus: int) -> float:
    """Of a GPU for each worker, so that all find room; Ray counts in ten-thousandths."""
    return floor(1e4 / ceil(workers / gpus)) / 1e4


def _why(error: Exception) -> str:
    return textwrap.shorten(str(error).rpartition("Worker exit detail: ")[2], 250)
