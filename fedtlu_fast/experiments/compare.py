"""Several selectors and seeds on the same federation: one arm each, in parallel processes.

The arms of one seed share data, cohorts, batches and the warm-up rounds, which are run once; they differ
in what clients train and send, and in what the server applies (with participation.sampler=loss also in the
cohorts after the warm-up).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fedtlu_fast.build.client_rule import make_client_rule
from fedtlu_fast.build.run import founding, open_run
from fedtlu_fast.config import ExecutionConfig, RunConfig
from fedtlu_fast.config.settings import read_config
from fedtlu_fast.errors import InputError, InterruptedRunError, ResumableError, WorkerError
from fedtlu_fast.experiments.arm_pool import (
    ArmPool,
    StoppedProcessError,
    arm_pool,
    limits_named,
    none_is_to_begin,
    signals_later,
)
from fedtlu_fast.experiments.references import (
    REFERENCES,
    reference_rounds,
    reference_summary,
    with_warmup,
)
from fedtlu_fast.experiments.variants import with_variant
from fedtlu_fast.machine import cores
from fedtlu_fast.runs.directory import COMPARISON, CONFIG, METRICS, RunDirectory
from fedtlu_fast.runs.reading import damage, has_summary
from fedtlu_fast.runs.results import ArmResult, arm_name, read_arm
from fedtlu_fast.runs.sealed import read_sealed_yaml
from fedtlu_fast.shown import shell_word
from fedtlu_fast.stopping import check_interrupt_was_not_lost
from fedtlu_fast.wording import JOBS, RESUMED, SEEDS, SELECTORS, either
from fedtlu_fast.yaml_text import dump_yaml, parse_yaml

logger = logging.getLogger("fedtlu_fast")

POLL_SECONDS = 0.5
POLICY = ("client_errors", "client_seconds", "retries")
"""Settings of `execution` that a comparison may go on with otherwise than it began."""


@dataclass(frozen=True)
class Arm:
    """One run of a comparison.

    Attributes:
        name: also its directory's, ``fedtlu-seed0``.
        selector: what it is called in tables, ``fedtlu``.
        config: its settings.
        path: its directory.
        until: the round it stops at.
        warmup: directory of the run whose warm-up rounds it takes over; None for the warm-ups themselves.
        summarise: whether it ends with the last tests and a summary; a shared warm-up does not.
    """

    name: str
    selector: str
    config: RunConfig
    path: Path
    until: int
    warmup: Path | None = None
    summarise: bool = True


Progress = Callable[[Arm, int], None]
"""Told, again and again, how many rounds an arm has done."""


def compare(
    config: RunConfig,
    selectors: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    jobs: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> list[ArmResult]:
    """Runs every selector with every seed.

    Args:
        config: settings of all arms, but for selector and seed.
        selectors: what differs between the arms, see `variants`: names of selectors (``fedtlu``), of
            clients' selectors with a budget (``strategic@2+lam=0.5``), or of `references`; see `with_warmup`.
        seeds: of the arms.
        out: a new or empty directory; every arm gets one in it.
        jobs: processes at a time; None: as many as there are cores for `config.threads` each.
        resume: go on with the comparison that `out` holds; finished arms are not run again.
        progress: see `Progress`.

    Raises:
        InputError: settings, data or directory do not fit; nothing was overwritten.
        InterruptedRunError: Ctrl-C; it can be resumed.
        FedtluError: an arm failed.
    """
    for selector in selectors:
        _with(config, selector, 0)
    selectors = with_warmup(selectors, config.warmup_rounds)
    for field, values in ((SELECTORS, selectors), (SEEDS, seeds)):
        if not values or len(set(values)) < len(values):
            raise InputError(field, list(values), "one or more, each once")
    jobs = jobs or max(1, cores() // (config.threads or cores()))
    if resume:
        begun, *arranged = comparison_settings(out)
        # Who trains was settled when it began; what becomes of failing clients, and how to save, may change.
        policy = {name: getattr(config.execution, name) for name in POLICY}
        execution = begun.execution.model_copy(update=policy)
        begun = begun.model_copy(update={"execution": execution, "checkpoint": config.checkpoint})
        config = config.model_copy(update={"execution": execution})
        if (begun, *arranged) != (config, tuple(selectors), tuple(seeds)):
            raise InputError(RESUMED, str(out), "the settings, selectors and seeds that it began with")
        directory = RunDirectory(out)
        directory.lock()
    else:
        RunDirectory.check_free(out)
        config = _settled(config, selectors, seeds, jobs)
        chosen = {"selectors": list(selectors), "seeds": list(seeds)}
        directory = RunDirectory.create(out, config.to_yaml(), arms=dump_yaml(chosen))
    check_interrupt_was_not_lost()
    warmups, arms = plan(config, selectors, seeds, out)
    try:
        with closing(directory):
            _run_all(warmups, arms, config.execution, min(jobs, len(arms)), progress)
    except ResumableError as error:
        error.how_to_resume = f"you can resume it with: {_resume_command(out)}"
        raise
    except (KeyboardInterrupt, InterruptedRunError) as interrupt:
        raise InterruptedRunError(f"you can resume it with: {_resume_command(out)}", interrupt) from None
    return [read_arm(arm.path) for arm in arms]


def is_complete(config: RunConfig, selectors: Sequence[str], seeds: Sequence[int], out: Path) -> bool:
    """Whether every arm of a comparison is finished; the arguments are those of `compare`."""
    return all(map(is_finished, arm_paths(config, selectors, seeds, out)))


def arm_paths(config: RunConfig, selectors: Sequence[str], seeds: Sequence[int], out: Path) -> list[Path]:
    """Directories of the arms of a comparison, in their order; the arguments are those of `compare`."""
    selectors = with_warmup(selectors, config.warmup_rounds)
    return [out / arm_name(selector, seed) for seed in seeds for selector in selectors]


def plan(
    config: RunConfig, selectors: Sequence[str], seeds: Sequence[int], out: Path
) -> tuple[list[Arm], list[Arm]]:
    """The shared warm-ups, and the arms that start from them."""
    warmups, arms = [], []
    # Tables of costs have all arms, as soon as one of them is among those that measure theirs.
    measured = any(_with(config, selector, 0).measures_costs for selector in selectors)
    shared = min(config.warmup_rounds, config.rounds) if len(selectors) > 1 else 0
    for seed in seeds:
        warmup = None
        if shared:
            warmup = out / f"warmup-seed{seed}"
            settings = _with(config, "full", seed)
            warmups.append(Arm(warmup.name, "full", settings, warmup, shared, summarise=False))
        for selector in selectors:
            name = arm_name(selector, seed)
            own = _with(config, selector, seed)
            if measured:
                own = own.model_copy(
                    update={"evaluation": own.evaluation.model_copy(update={"flops": "always"})}
                )
            until = config.rounds
            if selector in REFERENCES:
                until = reference_rounds(selector, min(config.warmup_rounds, config.rounds))
            arms.append(Arm(name, selector, own, out / name, until, warmup if until else None))
    return warmups, arms


def _run_all(
    warmups: Sequence[Arm],
    arms: Sequence[Arm],
    execution: ExecutionConfig,
    jobs: int,
    progress: Progress | None,
) -> None:
    """Runs all arms to their ends; where a process was stopped for too long, in others, as `retries` allows.

    Raises:
        WorkerError: processes are stopped again and again, or one is killed.
    """
    for losses in range(execution.retries + 1):
        try:
            with arm_pool(jobs, execution.client_seconds) as pool:
                needed = {arm.warmup for arm in arms if not is_finished(arm.path)}
                run_arms(pool, [arm for arm in warmups if arm.path in needed], progress)
                run_arms(pool, arms, progress)
            return
        except BrokenProcessPool as error:
            raise WorkerError(
                f"a worker process was killed (out of memory, perhaps): use fewer {JOBS} if memory is short"
            ) from error
        except StoppedProcessError as error:
            if losses == execution.retries:
                raise WorkerError(f"{error}, again and again (execution.retries); fix this") from error
            logger.warning("%s; the arms go on from their checkpoints in other processes", error)


def run_arms(pool: ArmPool, arms: Sequence[Arm], progress: Progress | None) -> None:
    """Runs arms to their ends, in the processes of `pool`.

    Raises:
        StoppedProcessError: see `ArmPool.watch`.
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


def run_arm(arm: Arm) -> None:
    """Runs one arm from wherever it stands; does nothing when it is finished, or no arm is to begin."""
    if threading.current_thread() is not threading.main_thread():
        _run_arm(arm)
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _run_arm(arm)
    finally:
        signal.signal(signal.SIGINT, before)


def _run_arm(arm: Arm) -> None:
    if none_is_to_begin() or is_finished(arm.path):
        return
    started = os.path.lexists(arm.path / CONFIG)
    with closing(open_run(arm.config, arm.path, resume=started)) as run:
        if arm.warmup is not None and run.state.round == 0:
            run.adopt(arm.warmup)
        run.advance(arm.until)
        if arm.selector in REFERENCES:
            with run.own_state():
                instead = reference_summary(arm.selector, run.server, run.state)
            run.finish(instead)
        elif arm.summarise:
            run.finish()


def is_finished(path: Path) -> bool:
    """Whether an arm left all that its table needs, as it was written."""
    directory = RunDirectory(path)
    return has_summary(directory) and damage(directory) is None


def comparison_settings(out: Path) -> tuple[RunConfig, tuple[str, ...], tuple[int, ...]]:
    """Settings, selectors and seeds of a comparison that was begun before.

    Raises:
        InputError: there is none, or its files are damaged.
    """
    for name in (CONFIG, COMPARISON):
        if not os.path.lexists(out / name):
            begun = os.path.lexists(out / CONFIG) or os.path.lexists(out / COMPARISON)
            expected = f"a directory with the {name} of an earlier comparison"
            anew = either("resume=False", "--out")
            fix = f"If nothing else is in it, begin anew with {anew}: nothing has been run." if begun else ""
            raise InputError(RESUMED, str(out), expected, fix)
    config = read_config(read_sealed_yaml(out / CONFIG, "the settings of this comparison"), out / CONFIG)
    arranged = parse_yaml(read_sealed_yaml(out / COMPARISON, "selectors and seeds of this comparison"))
    selectors, seeds = tuple(map(str, arranged["selectors"])), tuple(map(int, arranged["seeds"]))
    return config, selectors, seeds


def _settled(config: RunConfig, selectors: Sequence[str], seeds: Sequence[int], jobs: int) -> RunConfig:
    """The settings with the executor chosen, the same for all arms.

    Before anything is written or run, this finds out whether data, model, device and `keep` fit together.
    """
    settings = [_with(config, selector, seeds[0]) for selector in selectors]
    # Everything goes with the selector full; what asks most of the model tells whether it fits.
    strictest = max(settings, key=lambda one: one.selection.selector.budgeted)
    choosing = [one for one in settings if one.client_selection.chooses]
    # What one arm cannot do none does: arms differ in what was asked for alone.
    common: dict[str, object] = {"engine": strictest.execution.engine or "torch"} if choosing else {}
    if any(one.client_selection.keeps for one in choosing):
        common["clients_per_batch"] = 1
    execution = strictest.execution.model_copy(update=common)
    with founding(strictest.model_copy(update={"execution": execution})) as (settled, founded):
        execution, server = settled.execution, founded.server
        for one in choosing:
            make_client_rule(one, server.layout, server.trainer.task, server.population)
    timed = execution.client_seconds is not None
    if config.execution.executor == "auto" and not timed and jobs > 1 and len(selectors) * len(seeds) > 1:
        # The arms share the cores already; who trains does not change the result.
        vectorized = execution.engine == "torch" and (execution.clients_per_batch or 1) > 1
        executor = "vectorized" if vectorized else "serial"
        execution = execution.model_copy(update={"executor": executor})
    return config.model_copy(update={"execution": execution})


def _with(config: RunConfig, selector: str, seed: int) -> RunConfig:
    return with_variant(config, selector).model_copy(update={"seed": seed})


def _resume_command(out: Path) -> str:
    return either("the same call and resume=True", f"fedtlu compare --resume {shell_word(out)}")
