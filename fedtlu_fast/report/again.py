"""Makes the report of a finished run or comparison again from its directory, perhaps with more columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fedtlu_fast.errors import InputError
from fedtlu_fast.places import at_home
from fedtlu_fast.report.aggregate.history import read_layout
from fedtlu_fast.report.columns import Column
from fedtlu_fast.report.own_columns import Asked, OwnColumns, asked_columns
from fedtlu_fast.report.pages.comparison import write_comparison_report
from fedtlu_fast.report.pages.run import write_run_report
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.runs.directory import COMPARISON, PLAN, RunDirectory
from fedtlu_fast.runs.results import ArmResult, arm_path, read_arm
from fedtlu_fast.runs.sealed import read_sealed_yaml
from fedtlu_fast.wording import either
from fedtlu_fast.yaml_text import parse_yaml

FIELD = either("path", "RUN_DIR")


def write_report(path: str | os.PathLike[str], columns: Sequence[Asked] = ()) -> Path:
    """Makes tables, pictures and report.html of a finished run or comparison again; nothing is run.

    Args:
        path: the directory of the run or the comparison.
        columns: more columns, each by its name, as a `Column`, or as a function of a run; see
            `asked_columns`.

    Returns:
        The path of report.html.

    Raises:
        InputError: the directory holds no finished run or comparison, or a column cannot be found.
        StorageError: the directory cannot be written.

    Examples:
        >>> def megabytes_per_point(run):
        ...     return run.summary["bytes_up"] / 1e6 / (100 * run.summary["test_accuracy"])
        >>> fedtlu_fast.write_report("runs/mine", [megabytes_per_point])  # doctest: +SKIP
    """
    place, asked = at_home(path), asked_columns(columns)
    if os.path.lexists(place / PLAN):
        fix = "Give the command fedtlu experiment again, with --columns: finished runs are not run again."
        raise InputError(
            FIELD, str(place), "a run's or a comparison's directory; this is an experiment's", fix
        )
    if os.path.lexists(place / COMPARISON):
        results = _arms(place)
        write_comparison_report(results, RunSettings.read(place), place, OwnColumns.of(results, asked))
    else:
        _write_run(place, asked)
    return place / "report.html"


def _arms(place: Path) -> list[ArmResult]:
    what = "selectors and seeds of this comparison"
    arranged = parse_yaml(read_sealed_yaml(place / COMPARISON, what))
    pairs = [(selector, seed) for seed in arranged["seeds"] for selector in arranged["selectors"]]
    return [read_arm(arm_path(place, *pair), pair[0], FIELD) for pair in pairs]


def _write_run(place: Path, columns: Sequence[Column]) -> None:
    directory, _ = RunDirectory.open(place, FIELD)
    settings = RunSettings.read(place)
    run = read_arm(place, settings.selector, FIELD)
    write_run_report(run, read_layout(directory, run.selection, settings), settings, place, columns)
