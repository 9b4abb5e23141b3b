"""Makes the result of a finished run again, from its directory."""

from __future__ import annotations

import os
from pathlib import Path

from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.build.stored import read_stored, stored
from fedtlu_fast.errors import InputError
from fedtlu_fast.models.lora import frozen_identity
from fedtlu_fast.models.trained_model import trained_model
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.directory import METRICS, SELECTION, RunDirectory
from fedtlu_fast.runs.reading import read_finished
from fedtlu_fast.runs.results import RunResult
from fedtlu_fast.simulation.state import load_checkpoint
from fedtlu_fast.torch_state import own_state

FIELD = "RUN_DIR"


def load_result(directory: Path | str | os.PathLike[str], field: str = FIELD) -> RunResult:
    """Returns what a finished run left, with its model, as `simulate` returned it.

    The data are read again, because they decide the model's size and its labels; nothing is trained or
    written. The model is on the CPU, wherever it was trained.

    Args:
        directory: the directory of the run.
        field: the argument that names it, for messages.

    Raises:
        InputError: There is no finished run, it is not as it was written, its data or frozen weights have
            changed, or its model was given in Python.
    """
    path = at_home(directory)
    opened, _ = RunDirectory.open(path, field)
    summary, rows = read_finished(opened, field)
    config = read_stored(path, field)
    if config.task == "own":
        expected = "a run whose model settings can describe; this one was given to a Federation in Python"
        fix = f"Make its result in Python with the same objects: Federation(...).resume({str(path)!r})."
        raise InputError(field, str(path), expected, fix)
    complete = stored(config).complete
    with own_state(config.threads):
        parts = make_parts(config.model_copy(update={"device": "cpu"}), start=False)
        layout, model = parts.trainer.layout, parts.trainer.task.model
        same = {"data_sha256": parts.population.fingerprint, **frozen_identity(model)}
        try:
            state = load_checkpoint(opened.checkpoints, layout, same)
        except InputError as error:
            raise error.of(field) from error
        if state is None or state.sha256() != summary["params_sha256"]:
            expected = "a finished run with the checkpoint of its last round"
            raise InputError(field, str(path), expected, "Resume it, which writes the checkpoint again.")
        return RunResult(
            summary=summary,
            metrics=rows[METRICS],
            selection=rows[SELECTION],
            params=state.params,
            layout=layout,
            out=path,
            model=trained_model(model, layout, state.params, state.buffers),
            settings=complete,
            best=state.best,
        )
