"""Estimates the memory, disk and time that a run needs (``fedtlu run --dry-run``)."""

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
from fedtlu_fast.executors.parts import Processes
from fedtlu_fast.executors.shared_memory import SLOTS
from fedtlu_fast.memory import free_bytes
from fedtlu_fast.participation.cohort import sample_cohort
from fedtlu_fast.simulation.evaluation import global_test
from fedtlu_fast.simulation.founding import Founded

SERVER_VECTORS = 5
"""The number of vectors of P numbers that a server holds: old and new parameters, sum, change, model."""
TRAINER_VECTORS = 3
"""The number of vectors of a worker that trains one client at a time: parameters, gradients, a lane's sum."""


@dataclass(frozen=True)
class Estimate:
    """What one run needs, in bytes and seconds.

    Attributes:
        parameters: the number of parameters, P.
        executor: the executor that trains the clients.
        workers: the number of its workers.
        clients_per_batch: the number of clients that a worker trains in one pass.
        server_bytes: the vectors of the server, those of the cohort if the rule keeps them in memory, and the
            blocks that clients keep for themselves.
        worker_bytes: the vectors of all workers, without activations, data and libraries.
        free_bytes: the memory that is free now.
        client_seconds: the measured time in which one worker trains one client.
        round_seconds: the time of a round without its tests.
        test_seconds: the measured time of one global test.
        run_seconds: the time of all rounds and global tests; local tests are not included.
        checkpoint_bytes: the disk space of all checkpoints that are kept.
        upload_bytes: what the clients of one round would send in a real federation, if they send all blocks
            that they do not keep for themselves.
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
    """Measures the training of a few clients and one test; the federation itself is not changed.

    Args:
        config: the settings of the run, with the executor chosen.
        founded: the federation before its first round.
    """
    server = founded.server
    layout = server.layout
    clients_per_batch = config.execution.clients_per_batch or 1
    executor = config.execution.executor
    workers = executor.workers_for(config.cohort)
    client_seconds = _client_seconds(config, founded, clients_per_batch)
    start = time.perf_counter()
    global_test(server, founded.state)
    test_seconds = time.perf_counter() - start
    round_seconds = client_seconds * config.cohort / workers
    rows = clients_per_batch if clients_per_batch > 1 and config.execution.engine == "torch" else 0
    each = TRAINER_VECTORS * 4 * layout.size + rows * matrix_bytes(layout, config)
    slots = SLOTS * 4 * layout.size * workers if isinstance(executor, Processes) else 0
    vector = 4 * (layout.size + sum(slot.numel for slot in layout.buffers))
    optimizer = 4 * layout.size * server.optimizer.vectors
    rule = config.aggregation.rule
    stack = 0 if rule.spill_directory else stack_bytes(rule, layout.size, config.cohort)
    tests = ceil(config.rounds / config.evaluation.every)
    own, trained = personal_step(server.steps.steps), min(config.clients, config.rounds * config.cohort)
    part = None if own is None else own.part
    kept = 0 if part is None else 4 * (part.parameters + part.buffers) * trained
    blocks = tuple(b for b in range(len(layout.blocks)) if part is None or b not in part.blocks)
    drawn = sample_cohort(config.seed, 1, config.clients, config.cohort)
    return Estimate(
        parameters=layout.size,
        executor=config.execution.name_of("executor"),
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
        upload_bytes=sum(server.steps.message_bytes(client, blocks) for client in drawn),
    )


def _client_seconds(config: RunConfig, founded: Founded, clients_per_batch: int) -> float:
    """Measures the seconds that a client trains: the mean over the first clients, when they train again."""
    server, state = founded.server, founded.state
    cohort = sample_cohort(config.seed, 1, config.clients, config.cohort)[:clients_per_batch]
    trainer = make_lane_trainer(config, server.population, server.trainer, server.steps)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        trainer.train((state.params, state.buffers), Lane(1, 0, tuple(cohort)))
        seconds = time.perf_counter() - start
    return seconds / len(cohort)
