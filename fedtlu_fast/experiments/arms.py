"""The arms of a comparison: which runs it is made of, and how one of them is run to its end."""

from __future__ import annotations

import copy
import os
import signal
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedtlu_fast.build.privacy import account_of, with_noise
from fedtlu_fast.build.run import open_run
from fedtlu_fast.config import RunConfig
from fedtlu_fast.errors import InputError
from fedtlu_fast.experiments.arm_pool import none_is_to_begin
from fedtlu_fast.experiments.references import (
    REFERENCES,
    reference_rounds,
    reference_summary,
    with_warmup,
)
from fedtlu_fast.experiments.variants import with_variant
from fedtlu_fast.runs.arm_paths import arm_name, arm_path
from fedtlu_fast.runs.directory import CONFIG, RunDirectory
from fedtlu_fast.runs.reading import damage, has_summary
from fedtlu_fast.runs.results import ArmResult, read_arm
from fedtlu_fast.selection import FunctionSelector, Ranking
from fedtlu_fast.simulation.callbacks import Callback
from fedtlu_fast.wording import SELECTORS, in_python


@dataclass(frozen=True)
class Arm:
    """One run of a comparison.

    Attributes:
        name: the arm's name, such as ``fedtlu-seed0``.
        selector: what tables call it, such as ``fedtlu``.
        config: its settings.
        path: its directory.
        until: the round at which it stops.
        warmup: the directory of the run whose warm-up rounds it takes over; None for the warm-ups themselves.
        summarise: whether it ends with the last tests and a summary; a shared warm-up does not.
        callbacks: are copied, and the copies called; a shared warm-up has none.
        says_shares: whether it is the arm that says, for all arms of which the same is true, over which share
            of the parameters selection decides.
    """

    name: str
    selector: str
    config: RunConfig
    path: Path
    until: int
    warmup: Path | None = None
    summarise: bool = True
    callbacks: tuple[Callback, ...] = ()
    says_shares: bool = False


def check_arms(config: RunConfig, selectors: Sequence[str]) -> None:
    """Checks what arms have to share to be compared: their tests, and the account of their warm-up.

    Args:
        config: the settings of all arms, apart from selector and seed.
        selectors: the names of the arms; see `variants`.

    Raises:
        InputError: there is no such selector, its settings do not fit, or arms differ where they must not.
    """
    arms = {selector: arm_config(config, selector, 0) for selector in selectors}
    for name in ("held_out", "local_held_out"):
        for selector, own in arms.items():
            kept, first = (getattr(one.evaluation, name) for one in (own, arms[selectors[0]]))
            if kept != first:
                expected = f"evaluation.{name}={first} as in {selectors[0]}: held-out samples are in no test"
                fix = f"Set evaluation.{name}={max(kept, first)} for the whole comparison."
                raise InputError(SELECTORS, selector, expected, fix)
    if min(config.warmup_rounds, config.rounds) and len(selectors) > 1:
        for selector, own in arms.items():
            _check_account(config, own, selector)


def plan_arms(
    config: RunConfig,
    selectors: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    callbacks: Sequence[Callback] = (),
    said: set[Hashable] | None = None,
) -> tuple[list[Arm], list[Arm]]:
    """Plans a comparison: its shared warm-ups, and the arms that start from them.

    Args:
        config: the settings of all arms, apart from selector and seed.
        selectors: the names of the arms; see `variants`.
        seeds: the seeds, each of which every selector runs with.
        out: the comparison's directory.
        callbacks: of every arm.
        said: what earlier comparisons have said about shares of the parameters; this one adds to it.
    """
    warmups, arms = [], []
    said = set() if said is None else said
    # Tables of costs have all arms, as soon as one of them measures its costs.
    measured = any(arm_config(config, selector, 0).measures_costs for selector in selectors)
    shared = min(config.warmup_rounds, config.rounds) if len(selectors) > 1 else 0
    for seed in seeds:
        warmup = None
        if shared:
            warmup = out / f"warmup-seed{seed}"
            settings = arm_config(config, "full", seed)
            warmups.append(Arm(warmup.name, "full", settings, warmup, shared, summarise=False))
        for selector in selectors:
            name = arm_name(selector, seed)
            own = arm_config(config, selector, seed)
            if measured:
                own = own.model_copy(
                    update={"evaluation": own.evaluation.model_copy(update={"flops": "always"})}
                )
            until = config.rounds
            if selector in REFERENCES:
                until = reference_rounds(selector, min(config.warmup_rounds, config.rounds))
            path = arm_path(out, selector, seed)
            before = warmup if until else None
            says = _decided_by(own) not in said and selector not in REFERENCES
            said |= {_decided_by(own)} if says else set()
            arms.append(
                Arm(name, selector, own, path, until, before, callbacks=tuple(callbacks), says_shares=says)
            )
    return warmups, arms


def _check_account(config: RunConfig, own: RunConfig, selector: str) -> None:
    """Checks that the rounds of a shared warm-up cost what the arm's account says of its rounds.

    Raises:
        InputError: the arm has other noise, another budget or another sampling than the warm-up.
    """
    if config.privacy.on or own.privacy.on:
        with of_arm(selector):
            accounts = [account_of(with_noise(each)) for each in (config, own)]
        if accounts[0] != accounts[1]:
            expected = "the same noise, budget and sampling in every arm, whose warm-up they share"
            fix = "Give privacy and participation once, for the whole comparison, or set warmup_rounds=0."
            raise InputError(SELECTORS, selector, expected, fix)


def _decided_by(config: RunConfig) -> Hashable:
    """Returns the settings on which the shares depend that `say_shares` logs, for one model."""
    server, client = config.selection, config.client_selection
    ranks = isinstance(server.selector, Ranking | FunctionSelector)
    mine = (server.selector.budgeted and (ranks, str(server.keep)), server.granularity, server.blocks)
    theirs = client.chooses and (client.frozen, client.always, client.only, client.personal)
    return mine, theirs


def arm_config(config: RunConfig, selector: str, seed: int) -> RunConfig:
    """The settings of one arm.

    Args:
        config: the settings of all arms, apart from selector and seed.
        selector: the arm's name; see `variants`.
        seed: the arm's seed.

    Raises:
        InputError: there is no such selector, or its settings do not fit.
    """
    with of_arm(selector):
        return with_variant(config, selector).model_copy(update={"seed": seed})


@contextmanager
def of_arm(selector: str) -> Iterator[None]:
    """Inside, errors of an arm's settings name the arm too."""
    try:
        yield
    except InputError as error:
        if error.field == in_python(SELECTORS):  # its value is the arm already
            raise
        raise error.of(f"{error.field} of arm {selector}") from error


def arm_paths(warmup_rounds: int, selectors: Sequence[str], seeds: Sequence[int], out: Path) -> list[Path]:
    """The directories of the arms of a comparison, in their order.

    Args:
        warmup_rounds: of the comparison; see `with_warmup`.
        selectors: as for `compare`.
        seeds: as for `compare`.
        out: the comparison's directory.
    """
    names = with_warmup(selectors, warmup_rounds)
    return [arm_path(out, selector, seed) for seed in seeds for selector in names]


def read_arms(
    warmup_rounds: int, selectors: Sequence[str], seeds: Sequence[int], out: Path
) -> list[ArmResult]:
    """What the arms of a finished comparison left; see `arm_paths` for the arguments.

    Raises:
        InputError: an arm is not finished, or not as it was written.
    """
    names = with_warmup(selectors, warmup_rounds)
    return [read_arm(arm_path(out, selector, seed), selector) for seed in seeds for selector in names]


def run_arm(arm: Arm) -> None:
    """Runs one arm to its end, from wherever it stands.

    Nothing happens if the arm is finished, or if no further arm is to begin (`none_is_to_begin`).
    """
    if threading.current_thread() is not threading.main_thread():
        _run_arm(arm)
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _run_arm(arm)
    finally:
        signal.signal(signal.SIGINT, before)


def is_finished(path: Path) -> bool:
    """Whether an arm left all that its table needs, and nothing of it has changed since."""
    directory = RunDirectory(path)
    return has_summary(directory) and damage(directory) is None


def _run_arm(arm: Arm) -> None:
    if none_is_to_begin() or is_finished(arm.path):
        return
    started = os.path.lexists(arm.path / CONFIG)
    callbacks = copy.deepcopy(arm.callbacks)
    with closing(
        open_run(arm.config, arm.path, resume=started, callbacks=callbacks, says_shares=arm.says_shares)
    ) as run:
        if arm.warmup is not None and run.state.round == 0:
            run.adopt(arm.warmup)
        run.advance(arm.until)
        if arm.selector in REFERENCES:
            with run.own_state():
                instead = reference_summary(arm.selector, run.server, run.state)
            run.finish(instead)
        elif arm.summarise:
            run.finish()
