"""A whole federation: advance round by round, finish; resumable at any moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedtlu_fast.errors import InputError, InterruptedRunError, ResumableError
from fedtlu_fast.models.trained_model import trained_model
from fedtlu_fast.privacy.published import privacy_facts
from fedtlu_fast.process_state import check_settings
from fedtlu_fast.runs.results import RunResult
from fedtlu_fast.runs.settings import StoredSettings
from fedtlu_fast.simulation.callbacks import Callback, Callbacks, Observer
from fedtlu_fast.simulation.costs import write_measured_costs
from fedtlu_fast.simulation.decided import say_shares
from fedtlu_fast.simulation.endings import how_to_resume
from fedtlu_fast.simulation.founding import Founded
from fedtlu_fast.simulation.isolated import isolated
from fedtlu_fast.simulation.records import (
    client_ends,
    metrics_row,
    run_summary,
    selection_row,
    start_figures,
)
from fedtlu_fast.simulation.round import run_round
from fedtlu_fast.simulation.run_files import RunFiles
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.simulation.steering import best_of, context_of, steered
from fedtlu_fast.stopping import StopRequest
from fedtlu_fast.torch_state import own_state

logger = logging.getLogger("fedtlu_fast")


class Run:
    """A federation under way.

    It computes in a state of PyTorch of its own, whatever the caller has set: see `torch_state`. Only
    callbacks are called in the caller's.

    Attributes:
        settings: of the run, as its directory holds them, with the executor settled.
        note: which executor was chosen and why; empty when it was named.
        state: the server's state after the last round done.
        was_finished: whether the directory that it resumes held the whole run, its end included.
    """

    def __init__(
        self,
        founded: Founded,
        out: Path | None = None,
        *,
        begun: StoredSettings | None = None,
        callbacks: Sequence[Callback | Observer] = (),
        says_shares: bool = True,
    ) -> None:
        """Begins the run, or goes on from its latest checkpoint.

        Args:
            founded: the federation before its first round, whose executor this run closes.
            out: the run's directory; None writes nothing.
            begun: the settings that `out` holds, to go on with its run; None begins a new one.
            callbacks: are called at the run's moments.
            says_shares: whether it logs over which share of the parameters selection decides.

        Raises:
            InputError: the directory does not fit; the executor is closed.
        """
        self._threads, self._says_shares = founded.threads, says_shares
        with self.own_state():
            self._begin(founded, out, begun, callbacks)

    def own_state(self) -> AbstractContextManager[None]:
        """For work with the run's server and model outside of its methods."""
        return own_state(self._threads)

    def _begin(
        self,
        founded: Founded,
        out: Path | None,
        begun: StoredSettings | None,
        callbacks: Sequence[Callback | Observer],
    ) -> None:
        self.settings, self.note = founded.settings, founded.note
        self.server, self.state, self.layout = founded.server, founded.state, founded.server.layout
        # Of a model of the user's own, whose initial weights follow from no seed of ours.
        start = {name: own for name, own in founded.identity.items() if name == "start_sha256"}
        self._facts = {
            "run_name": founded.settings.complete.get("run_name"),
            "data": founded.data,
            "environment": founded.environment,
            **start,
        }
        self.files = RunFiles(
            founded.settings, founded.saving, self.layout, founded.identity, founded.environment
        )
        try:
            first, self._start, self._started = self.state, dict[str, Any](), False
            self._context = context_of(self.server, first, self.settings.complete, out, self.files)
            self._callbacks = Callbacks(callbacks, self._context)
            self.was_finished = self._open(out, begun)
            if self.state.round:
                self._test_start(first)
        except BaseException:
            self.close()
            raise

    def _open(self, out: Path | None, begun: StoredSettings | None) -> bool:
        """Makes the directory, or goes on from its checkpoint; whether all of the run had been done."""
        if out is None:
            return False
        if begun is None:
            self.files.create(out)
            return False
        state, ended = self.files.resume(out, begun)
        if state is not None:
            self._take(state)
        if not self.over:
            self._callbacks.warn_of_missing(self.state.control.callbacks)
        return ended and (self.state.round >= self.server.rounds or self.over)

    @isolated
    def advance(self, until: int, stop: StopRequest | None = None) -> None:
        """Runs rounds up to and including round `until`.

        Args:
            until: the last round to run; the run ends before it when it is `over`.
            stop: when it is made, the round under way is the last; a checkpoint is written either way.

        Raises:
            InputError: the global test gives no number even before round 1.
        """
        with self._interruptible():
            self._test_start(self.state)
            if not self._started:
                self._started = True
                if self._says_shares:
                    say_shares(self.server)
                self._callbacks.call("on_start")
                self.state = replace(self.state, control=self._context.control)
            while self.state.round < until and not stop and not self.over:
                self._round()
            self.save()

    @isolated
    def adopt(self, source: Path) -> None:
        """Takes over the rounds of another run that did exactly what this one would have done so far.

        Warm-up rounds do not depend on the selector, so the arms of a comparison share them.

        Args:
            source: the other run's directory; its checkpoint and log lines are copied.

        Raises:
            InputError: it ran on other data.
        """
        if self.files.directory is None:
            return
        self._test_start(self.state)
        state = self.files.adopt(source)
        if state is not None:
            self._take(state)
            self.save()

    def close(self) -> None:
        """Ends the workers, lets other runs write to the directory, and calls `Callback.on_close`."""
        try:
            self.server.executor.close()
        finally:
            self.files.close()
            if hasattr(self, "_callbacks"):  # they do not exist if one of them was refused
                self._callbacks.call("on_close")

    @isolated
    def save(self) -> None:
        """Writes a checkpoint of the last round done, unless there is one."""
        if self.files.save(self.state):
            self._callbacks.call("on_checkpoint")

    @isolated
    def finish(self, instead: Mapping[str, Any] | None = None) -> RunResult:
        """Makes the last tests and the summary; writes them when the run has a directory.

        Args:
            instead: entries that take the place of the summary's.
        """
        state, files = self.state, self.files
        with self._interruptible():
            self._test_start(state)
            summary = run_summary(self.server, state, files.metrics, self._start) | dict(instead or {})
            fingerprint = self.server.population.fingerprint
            summary |= {"data_sha256": fingerprint, **self._facts}
            noise = self.settings.complete["privacy"]["noise_multiplier"]
            summary |= privacy_facts(files.metrics, files.selection, summary, noise, [*(instead or {})])
            write_measured_costs(self.server, files.selection, files.directory)
            files.finish(summary, state.round)
        result = RunResult(
            summary=summary,
            metrics=files.metrics,
            selection=files.selection,
            params=state.params.cpu(),
            layout=self.layout,
            out=files.out,
            model=trained_model(self.server.trainer.task.model, self.layout, state.params, state.buffers),
            settings=self.settings.complete,
            best=state.best,
        )
        self._context.result = result
        self._callbacks.call("on_end")
        return result

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl of all rounds done."""
        return self.files.metrics

    @property
    def selection(self) -> list[dict[str, Any]]:
        """Rows of selection.jsonl of all rounds done."""
        return self.files.selection

    @property
    def over(self) -> bool:
        """Whether no further round will be run, however many the settings ask for."""
        return self.diverged or self.state.control.stopped is not None

    @property
    def diverged(self) -> bool:
        """Whether the last global test gave no number: all rounds after it would be worthless."""
        return bool(self.metrics) and bool(self.metrics[-1].get("diverged"))

    def _test_start(self, first: ServerState) -> None:
        """Tests the model before round 1, once; a resumed run does so again rather than keep it in a file.

        Args:
            first: the state before round 1, as long as it is not known yet.
        """
        if self._start:
            return
        found = start_figures(self.server, first)
        if found["start_test_loss"] is None:
            source = self.server.names.source
            raise InputError(
                *(("task", "a loss of NaN or Inf") if source == "own" else ("data.source", source)),
                "a model and a global test whose loss is a number; before round 1 it is none",
                "Look for NaN or Inf in the weights (pre-trained ones too) and in the samples.",
            )
        self._start = found

    def _take(self, state: ServerState) -> None:
        """Goes on from a state that was read from a checkpoint."""
        self.state = state.to(self.state.params.device)
        self._context.take(self.state.round, self.state.params, self.state.control, self.state.best)

    def _round(self) -> None:
        start, context = time.perf_counter(), self._context
        context.begin(self.state.round + 1)
        self._callbacks.call("on_round_start")
        self.server = steered(self.server, context)
        state, record = run_round(self.server, self.state)
        check_settings()
        trained_at = time.perf_counter()
        row = metrics_row(self.server, state, record)
        row["seconds"] = time.perf_counter() - start
        timings = {"round": state.round, **record.seconds, "evaluate": time.perf_counter() - trained_at}
        choice = selection_row(record, self.layout)
        context.trained(row, choice, state.params, lambda metric, value: best_of(state, metric, value))
        if self._callbacks.listen("on_client_end"):
            for context.client in client_ends(record):
                self._callbacks.call("on_client_end")
            context.client = None
        if context.is_due(state.round):
            self._callbacks.call("on_evaluate")
        self._callbacks.call("on_round_end")
        self.files.append(row, choice, timings)
        # Last, so that a Ctrl-C in the lines above leaves a checkpoint of the round before.
        self.state = replace(state, control=context.control, best=context.best)
        if self.files.is_due(state.round) or context.wants_save():
            self.save()
        self._callbacks.show(row)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Saves what is done at a Ctrl-C inside; errors inside say whether the run can be resumed."""
        try:
            yield
        except KeyboardInterrupt as interrupt:
            self.files.save(self.state)
            raise InterruptedRunError(self.how_to_resume(), interrupt) from None
        except ResumableError as error:
            error.saved = self.files.out is not None
            raise

    def how_to_resume(self) -> str:
        """What was done, and how to do the rest."""
        return how_to_resume(self.state.round, self.server.rounds, self.files.out)
