"""Several selectors and seeds on the same federation: one arm each, in parallel processes.

The arms of one seed share data, cohorts, batches and the warm-up rounds, which are run once; they differ
in what clients train and send, and in what the server applies (with participation.sampler=loss also in the
cohorts after the warm-up).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import closing
from pathlib import Path

from fedtlu_fast.config import RunConfig
from fedtlu_fast.errors import InputError, InterruptedRunError, ResumableError
from fedtlu_fast.experiments.arm_runs import Progress, run_comparison
from fedtlu_fast.experiments.arms import arm_paths, check_arms, is_finished, plan_arms
from fedtlu_fast.experiments.comparison_settings import arranged_text, resumed, settled
from fedtlu_fast.experiments.references import with_warmup
from fedtlu_fast.machine import cores
from fedtlu_fast.places import portable
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.runs.results import ArmResult, read_arm
from fedtlu_fast.shown import shell_word
from fedtlu_fast.simulation.callbacks import Callback
from fedtlu_fast.stopping import check_interrupt_was_not_lost
from fedtlu_fast.wording import SEEDS, SELECTORS, either


def compare(
    config: RunConfig,
    selectors: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    *,
    jobs: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    callbacks: Sequence[Callback] = (),
    said: set[Hashable] | None = None,
) -> list[ArmResult]:
    """Runs every selector with every seed.

    Args:
        config: the settings of all arms, apart from selector and seed.
        selectors: what differs between the arms, see `variants`: names of selectors (``fedtlu``), of
            clients' selectors with a budget (``strategic@2+lam=0.5``), or of `references`; see `with_warmup`.
        seeds: the seeds, each of which every selector runs with.
        out: a new or empty directory; every arm gets one in it.
        jobs: the number of processes; None: as many as there are cores for `config.threads` each.
        resume: go on with the comparison that `out` holds; finished arms are not run again.
        progress: see `Progress`.
        callbacks: are called in every arm, which has copies of its own; they have to be picklable. The shared
            warm-up calls none: an arm has its rows when its callbacks start.
        said: see `plan_arms`.

    Raises:
        InputError: settings, data or directory do not fit; nothing was overwritten.
        InterruptedRunError: Ctrl-C was pressed; the comparison can be resumed.
        FedtluError: an arm failed.
    """
    check_arms(config, selectors)
    selectors = with_warmup(selectors, config.warmup_rounds)
    for field, values in ((SELECTORS, selectors), (SEEDS, seeds)):
        if not values or len(set(values)) < len(values):
            raise InputError(field, list(values), "one or more, each once")
    if len({portable(selector) for selector in selectors}) < len(selectors):
        expected = "names that differ in letters, digits or other characters that names of directories take"
        raise InputError(SELECTORS, list(selectors), expected)
    jobs = jobs or max(1, cores() // (config.threads or cores()))
    if resume:
        config = resumed(config, selectors, seeds, out)
        directory = RunDirectory(out)
        directory.lock()
    else:
        RunDirectory.check_free(out)
        config = settled(config, selectors, seeds, jobs)
        directory = RunDirectory.create(out, config.to_yaml(), arms=arranged_text(selectors, seeds))
    check_interrupt_was_not_lost()
    warmups, arms = plan_arms(config, selectors, seeds, out, callbacks, said)
    execution = config.execution
    try:
        with closing(directory):
            run_comparison(
                warmups,
                arms,
                jobs=min(jobs, len(arms)),
                patience=execution.client_seconds,
                retries=execution.retries,
                progress=progress,
            )
    except ResumableError as error:
        error.how_to_resume = f"you can resume it with: {_resume_command(out)}"
        raise
    except (KeyboardInterrupt, InterruptedRunError) as interrupt:
        raise InterruptedRunError(f"you can resume it with: {_resume_command(out)}", interrupt) from None
    return [read_arm(arm.path, arm.selector) for arm in arms]


def is_complete(warmup_rounds: int, selectors: Sequence[str], seeds: Sequence[int], out: Path) -> bool:
    """Whether every arm of a comparison is finished; see `arm_paths` for the arguments."""
    return all(map(is_finished, arm_paths(warmup_rounds, selectors, seeds, out)))


def _resume_command(out: Path) -> str:
    return either("the same call and resume=True", f"fedtlu compare --resume {shell_word(out)}")
