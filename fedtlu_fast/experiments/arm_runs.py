"""Runs the arms of a comparison in parallel processes, and begins again when the system stops one of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool

from fedtlu_fast.errors import WorkerError
from fedtlu_fast.experiments.arm_pool import (
    ArmPool,
    StoppedProcessError,
    arm_pool,
    limits_named,
    signals_later,
)
from fedtlu_fast.experiments.arms import Arm, is_finished, run_arm
from fedtlu_fast.runs.directory import METRICS, RunDirectory
from fedtlu_fast.wording import JOBS

logger = logging.getLogger("fedtlu_fast")

POLL_SECONDS = 0.5

Progress = Callable[[Arm, int], None]
"""A function that is called again and again with an arm and the number of rounds that it has done."""


def run_comparison(
    warmups: Sequence[Arm],
    arms: Sequence[Arm],
    *,
    jobs: int,
    patience: float | None,
    retries: int,
    progress: Progress | None = None,
) -> None:
    """Runs all arms to their ends.

    Where a process was stopped for too long, the arms go on in other processes.

    Args:
        warmups: the shared warm-ups, which are run first where an unfinished arm needs them.
        arms: the arms.
        jobs: the number of processes.
        patience: seconds that a process may be stopped (SIGSTOP); None: no limit.
        retries: how often other processes take over.
        progress: see `Progress`.

    Raises:
        WorkerError: processes are stopped again and again, or one is killed.
    """
    for losses in range(retries + 1):
        try:
            with arm_pool(jobs, patience) as pool:
                needed = {arm.warmup for arm in arms if not is_finished(arm.path)}
                run_arms(pool, [arm for arm in warmups if arm.path in needed], progress)
                run_arms(pool, arms, progress)
            return
        except BrokenProcessPool as error:
            raise WorkerError(
                f"a worker process was killed (out of memory, perhaps): use fewer {JOBS} if memory is short"
            ) from error
        except StoppedProcessError as error:
            if losses == retries:
                raise WorkerError(f"{error}, again and again (execution.retries); fix this") from error
            logger.warning("%s; the arms go on from their checkpoints in other processes", error)


def run_arms(pool: ArmPool, arms: Sequence[Arm], progress: Progress | None) -> None:
    """Runs arms to their ends in the processes of `pool`.

    Raises:
        StoppedProcessError: a process was stopped for too long; see `ArmPool.watch`.
    """
    with signals_later(), limits_named():
        unfinished: set[Future[None]] = {pool.executor.submit(run_arm, arm) for arm in arms}
    while unfinished:
        done, unfinished = wait(unfinished, POLL_SECONDS, FIRST_COMPLETED)
        pool.watch(POLL_SECONDS)
        if progress is not None:
            for arm in arms:
                progress(arm, len(RunDirectory(arm.path).rows(METRICS)))
        for future in done:
            future.result()
