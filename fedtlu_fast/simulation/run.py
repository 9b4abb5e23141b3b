"""A whole federation: build, advance round by round, finish; resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.documents import made_with
from fedtlu_fast.environment import environment_facts
from fedtlu_fast.errors import InputError, InterruptedRunError, check_kind
from fedtlu_fast.lora import frozen_identity
from fedtlu_fast.ops.dispatch import check_device, resolve
from fedtlu_fast.own_code import own_code
from fedtlu_fast.places import at_home
from fedtlu_fast.process_state import check_settings
from fedtlu_fast.runs.directory import METRICS, RESULTS, SELECTION, TIMINGS, RunDirectory
from fedtlu_fast.runs.reading import damage, has_summary
from fedtlu_fast.runs.results import RunResult
from fedtlu_fast.settings import parse_config
from fedtlu_fast.shown import shell_word
from fedtlu_fast.simulation.executors import choose, make_executor
from fedtlu_fast.simulation.parts import make_parts
from fedtlu_fast.simulation.records import data_facts, metrics_row, run_summary, selection_row, start_figures
from fedtlu_fast.simulation.round import initial_state, make_server, run_round
from fedtlu_fast.simulation.state import ServerState, load_checkpoint, save_checkpoint
from fedtlu_fast.simulation.stopping import StopRequest
from fedtlu_fast.simulation.trained_model import trained_model
from fedtlu_fast.torch_state import callers_state, own_state
from fedtlu_fast.wording import either

logger = logging.getLogger("fedtlu_fast")

Observer = Callable[[dict[str, Any]], None]
"""Called after every round with its row of metrics.jsonl."""


def simulate(
    config: RunConfig | Mapping[str, Any],
    out: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    observer: Observer | None = None,
) -> RunResult:
    """Runs one federation to its end.

    Args:
        config: the settings, complete or in part (what is missing has `RunConfig`'s defaults).
        out: a new or empty directory for the run's files; None writes nothing.
        resume: go on with the run that `out` holds, from its latest checkpoint.
        observer: told of every round.

    Returns:
        Summary, metrics and final parameters. The same config gives the same bits (but for `seconds`),
        whether or not the run was killed and resumed in between.

    Raises:
        InputError: settings, data or directory do not fit; nothing was overwritten.
        StorageError: the directory cannot be written any more; it can be resumed.
        InterruptedRunError: Ctrl-C; it can be resumed.

    Example:
        >>> import fedtlu_fast
        >>> settings = {"rounds": 2, "clients": 8, "cohort": 2, "model": {"layers": 2, "width": 16}}
        >>> result = fedtlu_fast.simulate(settings)  # doctest: +SKIP
        >>> result.summary["test_perplexity"]  # doctest: +SKIP
        2034.6
    """
    settings = config if isinstance(config, RunConfig) else parse_config(config)
    check_kind("out", out, (str, os.PathLike, type(None)), "a path, or None to write nothing")
    with closing(Run(settings, at_home(out) if out is not None else None, resume=resume)) as run:
        run.advance(settings.rounds, observer)
        result = run.finish()
    if run.diverged:
        logger.warning(run.how_it_diverged())
    if result.out is not None:
        # Imported late: who wants no files need not wait for matplotlib.
        from fedtlu_fast.report.pages.run import write_run_report

        with own_state():
            write_run_report(result, run.config, result.out)
    return result


Self = TypeVar("Self", bound="Run")
Given = ParamSpec("Given")
Result = TypeVar("Result")


def _isolated(
    method: Callable[Concatenate[Self, Given], Result],
) -> Callable[Concatenate[Self, Given], Result]:
    """The method of a run, in a state of PyTorch that is the run's own (see `own_state`)."""

    @wraps(method)
    def inside(self: Self, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        with self.own_state():
            return method(self, *args, **kwargs)

    return inside


class Run:
    """A federation under way.

    It computes in a state of PyTorch of its own, whatever the caller has set: see `torch_state`. Only
    observers are called in the caller's.

    Attributes:
        config: its settings, with the executor settled.
        note: which executor was chosen and why; empty when it was named.
        state: the server's state after the last round done.
        was_finished: whether the directory that it resumes held the whole run, its end included.
    """

    def __init__(self, config: RunConfig, out: Path | None = None, *, resume: bool = False) -> None:
        """Builds the federation, or rebuilds it as its latest checkpoint has it (see `simulate`)."""
        self._threads = config.threads
        with self.own_state():
            self._build(config, out, resume)

    def own_state(self) -> AbstractContextManager[None]:
        """For work with the run's server and model outside of its methods."""
        return own_state(self._threads)

    def _build(self, config: RunConfig, out: Path | None, resume: bool) -> None:
        check_device("device", config.device)
        if out is not None and not resume:
            RunDirectory.check_free(out)  # before the data and the model cost any time
        resolve(config.backend, torch.device(config.device).type)
        if resume and out is not None and config.execution.executor == "auto":
            # Chosen once: another choice would give other last bits.
            config = config.model_copy(update={"execution": RunDirectory.open(out)[1].execution})
        parts = make_parts(config)
        population, trainer = parts.population, parts.trainer
        self._origin = parts.origin
        self.layout = trainer.layout
        self.state = initial_state(self.layout, trainer.task.model)
        self.config, self.note = choose(config, population, trainer)
        if self.note:
            logger.info(self.note)
        self.identity = {"config_sha256": _digest(self.config), "data_sha256": population.fingerprint}
        self.identity |= frozen_identity(trainer.task.model)
        if self.config.own is not None:
            self.identity["start_sha256"] = self.state.sha256()
        self.identity |= {f"code of {name}": digest for name, digest in own_code(self.config.parts()).items()}
        self.environment = environment_facts(config.device, made_with(config.data.source))
        self.was_finished = False
        self._start: dict[str, Any] = {}
        self._warned: set[str] = set()
        self.metrics: list[dict[str, Any]] = []
        self.selection: list[dict[str, Any]] = []
        executor = make_executor(self.config, population, trainer)
        try:
            self.server = make_server(self.config, self.layout, population, trainer, executor)
            self.identity |= self.server.participation.identity
            first = self.state
            self.directory = self._directory(out, resume)
            if self.state.round:
                self._test_start(first)
        except BaseException:
            executor.close()
            raise
        self._saved_round, self._saved_at = self.state.round, time.monotonic()

    @_isolated
    def advance(self, until: int, observer: Observer | None = None, stop: StopRequest | None = None) -> None:
        """Runs rounds up to and including round `until`.

        Args:
            until: the last round to run; the run ends before it when it has `diverged`.
            observer: told of every round.
            stop: when it is made, the round under way is the last; a checkpoint is written either way.

        Raises:
            InputError: the global test gives no number even before round 1.
        """
        with self._interruptible():
            self._test_start(self.state)
            while self.state.round < until and not stop and not self.diverged:
                row = self._round()
                if observer is not None:
                    with callers_state():
                        observer(row)
            self.save()

    @_isolated
    def adopt(self, source: Path) -> None:
        """Takes over the rounds of another run that did exactly what this one would have done so far.

        Warm-up rounds do not depend on the selector, so the arms of a comparison share them.

        Args:
            source: the other run's directory; its checkpoint and log lines are copied.

        Raises:
            InputError: it ran on other data.
        """
        origin, _ = RunDirectory.open(source)
        data_only = {"data_sha256": self.identity["data_sha256"]}
        state = load_checkpoint(origin.checkpoints, self.layout, data_only)
        if state is None or self.directory is None:
            return
        self._test_start(self.state)
        self.state = self._on_device(state)
        rows = {log: origin.rows(log)[: state.round] for log in RESULTS}
        for log, held in {**rows, TIMINGS: origin.timings(state.round)}.items():
            for row in held:
                self.directory.append(log, row)
        self.metrics, self.selection = self.directory.rows(METRICS), self.directory.rows(SELECTION)
        self.save()

    def close(self) -> None:
        """Ends the workers and lets other runs write to the directory."""
        self.server.executor.close()
        if self.directory is not None:
            self.directory.close()

    @_isolated
    def save(self) -> None:
        """Writes a checkpoint of the last round done, unless there is one."""
        if self.directory is None or (self._saved_round == self.state.round and self.state.round):
            return
        self.directory.sync()
        save_checkpoint(
            self.directory.checkpoints,
            self.layout,
            self.state,
            self.identity,
            self.config.checkpoint.retain,
            logs=self.directory.digests(self.state.round),
            environment=self.environment,
        )
        self._saved_round, self._saved_at = self.state.round, time.monotonic()

    @_isolated
    def finish(self, instead: Mapping[str, Any] | None = None) -> RunResult:
        """Makes the last tests and the summary; writes them when the run has a directory.

        Args:
            instead: entries that take the place of the summary's.
        """
        with self._interruptible():
            self._test_start(self.state)
            summary = run_summary(self.server, self.state, self.metrics, self._start) | dict(instead or {})
            fingerprint = self.identity["data_sha256"]
            data = data_facts(self.config.data, fingerprint, self._origin)
            summary |= {"data": data, "data_sha256": fingerprint, "environment": self.environment}
            if self.directory is not None:
                self.directory.finish(summary, self.state.round)
        out = self.directory.path if self.directory is not None else None
        state, own = self.state, self.server.trainer.task.model
        model = trained_model(own, self.layout, state.params, state.buffers)
        return RunResult(summary, self.metrics, self.selection, state.params.cpu(), self.layout, out, model)

    @property
    def diverged(self) -> bool:
        """Whether the last global test gave no number: all rounds after it would be worthless."""
        return bool(self.metrics) and bool(self.metrics[-1].get("diverged"))

    def how_it_diverged(self) -> str:
        """What happened to a run that has diverged, and what may help."""
        return (
            f"the global model has diverged: after round {self.state.round} of {self.config.rounds} its test "
            f"loss is no number, and no further round was run. Use a smaller training.lr or server_lr, "
            f"training.clip_norm, a robust aggregation.rule, or aggregation.max_share"
        )

    def _test_start(self, first: ServerState) -> None:
        """Tests the model before round 1, once; a resumed run does so again rather than keep it in a file.

        Args:
            first: the state before round 1, as long as it is not known yet.
        """
        if self._start:
            return
        found = start_figures(self.server, first)
        if found["start_test_loss"] is None:
            raise InputError(
                "data.source",
                self.config.data.source,
                "a model and a global test whose loss is a number; before round 1 it is none",
                "Look for NaN or Inf in the weights (model.pretrained) and in the samples.",
            )
        self._start = found

    def _on_device(self, state: ServerState) -> ServerState:
        device = self.config.device
        optimizer = {name: vector.to(device) for name, vector in state.optimizer.items()}
        params, buffers = state.params.to(device), state.buffers.to(device)
        last = None if state.last_change is None else state.last_change.to(device)
        return replace(state, params=params, buffers=buffers, optimizer=optimizer, last_change=last)

    def _directory(self, out: Path | None, resume: bool) -> RunDirectory | None:
        if out is None:
            if resume:
                raise InputError("resume", True, "a directory to resume from, in out")
            return None
        if not resume:
            return RunDirectory.create(out, self.config)
        directory, _ = RunDirectory.open(out)
        directory.lock()
        state = load_checkpoint(
            directory.checkpoints, self.layout, self.identity, environment=self.environment
        )
        if state is not None:
            self.state = self._on_device(state)
        ended = has_summary(directory)
        damaged = damage(directory) if ended else None
        directory.rewind(self.state.round)
        if damaged:
            logger.warning("%s: %s; the end of this run is made anew", out, damaged)
        self.metrics, self.selection = directory.rows(METRICS), directory.rows(SELECTION)
        over = self.state.round >= self.config.rounds or self.diverged
        self.was_finished = ended and not damaged and over
        return directory

    def _round(self) -> dict[str, Any]:
        start = time.perf_counter()
        state, record = run_round(self.server, self.state)
        check_settings()
        trained_at = time.perf_counter()
        metrics = metrics_row(self.server, state, record)
        metrics["seconds"] = time.perf_counter() - start
        seconds = {**record.seconds, "evaluate": time.perf_counter() - trained_at}
        choice = selection_row(record, self.layout, self.config.selection.metric)
        if self.directory is not None:
            self.directory.append(SELECTION, choice)
            self.directory.append(TIMINGS, {"round": state.round, **seconds})
            self.directory.append(METRICS, metrics)
        self.metrics.append(metrics)
        self.selection.append(choice)
        self._warn_of_losses(metrics)
        # Last, so that a Ctrl-C in the lines above leaves a checkpoint of the round before.
        self.state = state
        if self.directory is not None and self._save_is_due():
            self.save()
        return metrics

    def _warn_of_losses(self, row: dict[str, Any]) -> None:
        """Says once that blocks, or all clients of a round, were left out; the rows say it of every round."""
        if row["nonfinite_blocks"] and "blocks" not in self._warned:
            self._warned.add("blocks")
            logger.warning(
                "round %d: left out, since their change or new values are not finite, or too large: %s. "
                "nonfinite_blocks in metrics.jsonl names such blocks in every round",
                row["round"],
                ", ".join(row["nonfinite_blocks"]),
            )
        if (
            row["refused"]
            and not row["selected"]
            and not row["nonfinite_blocks"]
            and "all" not in self._warned
        ):
            self._warned.add("all")
            logger.warning(
                "round %d: the model did not change: what the clients sent was refused, since it was NaN, "
                "Inf or too large (%d clients). Look at the data, or use a smaller training.lr; refused in "
                "metrics.jsonl names such clients in every round",
                row["round"],
                len(row["refused"]),
            )

    def _save_is_due(self) -> bool:
        rounds, minutes = self.config.checkpoint.every, self.config.checkpoint.minutes
        if self.state.round % rounds == 0:
            return True
        return minutes is not None and time.monotonic() - self._saved_at > 60 * minutes

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C inside: saves what is done and says how to go on."""
        try:
            yield
        except KeyboardInterrupt as interrupt:
            self.save()
            raise InterruptedRunError(self.how_to_go_on(), interrupt) from None

    def how_to_go_on(self) -> str:
        """What was done, and how to do the rest."""
        done = f"after round {self.state.round} of {self.config.rounds}"
        if self.directory is None:
            return f"{done}; nothing was written, since the run has no directory"
        path = self.directory.path
        again = either(
            f"simulate(config, {str(path)!r}, resume=True)", f"fedtlu run --resume {shell_word(path)}"
        )
        return f"{done}; go on with: {again}"


def _digest(config: RunConfig) -> str:
    """Of the settings that decide the result: who trains, and how often it is saved, may change."""
    settled = config.model_dump(mode="json", exclude={"checkpoint"})
    settled["execution"] = {
        name: settled["execution"][name] for name in ("at_once", "engine", "compile", "precision", "lanes")
    }
    return hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()
