"""Offers `simulate`, which runs a whole federation from settings in one call."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from fedtlu_fast.build.run import open_run
from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.settings import DEFAULT_PRESET, load_config
from fedtlu_fast.errors import InputError, check_kind
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.results import RunResult
from fedtlu_fast.simulation.callbacks import Callback, Observer
from fedtlu_fast.simulation.endings import how_it_diverged

logger = logging.getLogger("fedtlu_fast")


def simulate(
    config: RunConfig | Mapping[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    *,
    preset: str | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback | Observer] = (),
) -> RunResult:
    """Runs one federation to its end.

    Args:
        config: complete settings, or a nested mapping of some settings; the preset gives the others.
        out: a new or empty directory for the run's files; None writes no files.
        preset: the name of settings that ship with the package; None stands for ``quickstart``, as in
            ``fedtlu run``.
        resume: whether to resume the run in `out` from its latest checkpoint. With more `rounds` than it
            had, the run is made longer.
        callbacks: `Callback` objects, and functions that get each round's row of metrics.jsonl.

    Returns:
        Summary, metrics and final parameters. The same config gives the same bits (except `seconds`),
        whether or not the run was killed and resumed in between.

    Raises:
        InputError: Settings, data or directory do not fit; nothing was overwritten.
        StorageError: The directory cannot be written any more; the run can be resumed.
        InterruptedRunError: Ctrl-C stopped the run; it can be resumed.

    Examples:
        >>> import fedtlu_fast
        >>> settings = {"rounds": 2, "clients": 8, "cohort": 2, "model": {"layers": 2, "width": 16}}
        >>> result = fedtlu_fast.simulate(settings)  # doctest: +SKIP
        >>> result.summary["test_perplexity"]  # doctest: +SKIP
        2034.6
    """
    if isinstance(config, RunConfig):
        if preset is not None:
            raise InputError(
                "preset", preset, "None beside complete settings", "Give config as a mapping of settings."
            )
        settings = config
    else:
        settings = load_config(preset or DEFAULT_PRESET, settings={} if config is None else config)
    check_kind("out", out, (str, os.PathLike, type(None)), "a path, or None to write nothing")
    check_kind("callbacks", callbacks, Sequence, "a list of callbacks, such as [EarlyStopping()]")
    place = at_home(out) if out is not None else None
    called = [*callbacks, *_report(place, callbacks)]
    with closing(open_run(settings, place, resume=resume, callbacks=called)) as run:
        run.advance(settings.rounds)
        result = run.finish()
    if run.diverged:
        logger.warning(how_it_diverged(run.state.round, settings.rounds))
    return result


def _report(out: Path | None, given: Sequence[Callback | Observer]) -> list[Callback]:
    """Returns the callback that writes the report.

    There is none for a run without a directory, or where it is among the given callbacks.
    """
    if out is None:
        return []
    # Imported late, because a run without files need not wait for matplotlib.
    from fedtlu_fast.report.callback import WriteReport

    return [] if any(isinstance(one, WriteReport) for one in given) else [WriteReport()]
