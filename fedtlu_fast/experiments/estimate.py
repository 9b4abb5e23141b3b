"""What a run will need, found out before it begins: memory, disk and time (``fedtlu run --dry-run``)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil

from fedtlu_fast.aggregation import stack_bytes
from fedtlu_fast.build.lanes import make_lane_trainer
from fedtlu_fast.build.way import matrix_bytes
from fedtlu_fast.client_steps.personal import personal_step
from fedtlu_fast.config import RunConfig
from fedtlu_fast.executors.lanes import Lane
from fedtlu_fast.executors.shared_memory import SLOTS
from fedtlu_fast.machine import cores
from fedtlu_fast.memory import free_bytes
from fedtlu_fast.participation.cohort import sample_cohort
from fedtlu_fast.simulation.evaluation import global_test
from fedtlu_fast.simulation.founding import Founded

SERVER_VECTORS = 5
"""Vectors of P numbers that every server holds: old and new parameters, the sum, the change, the model."""
TRAINER_VECTORS = 3
"""Those of a worker that trains one client at a time: parameters, gradients, a lane's sum."""


@dataclass(frozen=True)
class Estimate:
    """What one run needs; bytes and seconds.

    Attributes:
        parameters: P.
        executor: who trains.
        workers: how many.
        clients_per_batch: clients that a worker trains at once.
        server_bytes: vectors of the server, of the cohort where the rule keeps them in memory, and what
            clients keep for themselves.
        worker_bytes: vectors of all workers; activations, data and libraries come on top.
        free_bytes: memory that is free now.
        client_seconds: training of one client by one worker, measured.
        round_seconds: of a round without its tests.
        test_seconds: of one global test, measured.
        run_seconds: of all rounds and tests; the local tests are left out.
        checkpoint_bytes: on disk at a time, all that are kept.
        upload_bytes: what the clients of one round would send in a real federation.
    """

    parameters: int
    executor: str
    workers: int
    clients_per_batch: int
    server_bytes: int
    worker_bytes: int
    free_bytes: int
    client_seconds: float
    round_seconds: float
    test_seconds: float
    run_seconds: float
    checkpoint_bytes: int
    upload_bytes: int


def estimate(config: RunConfig, founded: Founded) -> Estimate:
    """Trains a few clients and makes one test to find out; the federation itself is not changed.

    Args:
        config: settings of the run, with the executor settled.
        founded: the federation before its first round.
    """
    server = founded.server
    layout = server.layout
    clients_per_batch = config.execution.clients_per_batch or 1
    name = config.execution.executor.partition(":")[0]
    workers = min(config.execution.workers or cores(), config.cohort) if name in ("processes", "ray") else 1
    client_seconds = _client_seconds(config, founded, clients_per_batch)
    start = time.perf_counter()
    global_test(server, founded.state)
    test_seconds = time.perf_counter() - start
    round_seconds = client_seconds * config.cohort / workers
    rows = clients_per_batch if clients_per_batch > 1 and config.execution.engine == "torch" else 0
    each = TRAINER_VECTORS * 4 * layout.size + rows * matrix_bytes(layout, config)
    slots = SLOTS * 4 * layout.size * workers if name == "processes" else 0
    vector = 4 * (layout.size + sum(slot.numel for slot in layout.buffers))
    optimizer = 4 * layout.size * server.optimizer.vectors
    rule = config.aggregation.rule
    stack = 0 if rule.spill_directory else stack_bytes(rule, layout.size, config.cohort)
    tests = ceil(config.rounds / config.evaluation.every)
    own, trained = personal_step(server.steps.steps), min(config.clients, config.rounds * config.cohort)
    part = None if own is None else own.part
    kept = 0 if part is None else 4 * (part.parameters + part.buffers) * trained
    sent = layout.size - (0 if part is None else part.parameters)
    return Estimate(
        parameters=layout.size,
        executor=config.execution.executor,
        workers=workers,
        clients_per_batch=clients_per_batch,
        server_bytes=SERVER_VECTORS * vector + 2 * optimizer + stack + kept,
        worker_bytes=workers * each + slots,
        free_bytes=free_bytes(config.device),
        client_seconds=client_seconds,
        round_seconds=round_seconds,
        test_seconds=test_seconds,
        run_seconds=config.rounds * round_seconds + tests * test_seconds,
        checkpoint_bytes=(vector + optimizer + kept) * (config.checkpoint.retain + 1),
        upload_bytes=4 * sent * config.cohort,
    )


def _client_seconds(config: RunConfig, founded: Founded, clients_per_batch: int) -> float:
    """Of the first round's first clients, the second time they are trained."""
    server, state = founded.server, founded.state
    cohort = sample_cohort(config.seed, 1, config.clients, config.cohort)[:clients_per_batch]
    trainer = make_lane_trainer(config, server.population, server.trainer, server.steps)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        trainer.train((state.params, state.buffers), Lane(1, 0, tuple(cohort)))
        seconds = time.perf_counter() - start
    return seconds / len(cohort)
