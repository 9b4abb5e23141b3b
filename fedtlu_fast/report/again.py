"""Makes the report of a finished run, comparison or experiment again, or sets several side by side."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

from fedtlu_fast.data.holdings import Holdings
from fedtlu_fast.errors import InputError, resumes_nothing
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.places import at_home
from fedtlu_fast.report.aggregate.entries import read_entries
from fedtlu_fast.report.aggregate.history import read_layout
from fedtlu_fast.report.columns import Column
from fedtlu_fast.report.own_columns import Asked, OwnColumns, asked_columns
from fedtlu_fast.report.pages.comparison import write_comparison_report
from fedtlu_fast.report.pages.experiment import write_experiment_report
from fedtlu_fast.report.pages.page import PAGE, is_page, write_page
from fedtlu_fast.report.pages.run import page_of_run, write_run_report
from fedtlu_fast.report.pages.side_by_side import side_by_side_page
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.runs.arm_paths import arm_path
from fedtlu_fast.runs.directory import COMPARISON, CONFIG, PLAN, RunDirectory
from fedtlu_fast.runs.results import ArmResult, ConditionResult, read_arm
from fedtlu_fast.runs.sealed import read_sealed_yaml
from fedtlu_fast.wording import OUT, either
from fedtlu_fast.yaml_text import parse_yaml

FIELD = either("path", "RUN_DIR")
Given = str | os.PathLike[str]


@resumes_nothing()
def write_report(
    path: Given | Sequence[Given],
    columns: Sequence[Asked] = (),
    out: Given | None = None,
    holdings: Holdings | None = None,
) -> Path:
    """Makes tables, pictures and report.html of a finished run, comparison or experiment again.

    Several directories become one page that sets all their runs side by side: what differs in their settings,
    their curves, and one table. Nothing is run.

    Args:
        path: the directory of a run, a comparison or an experiment, or a list of such directories.
        columns: more columns, each by its name, as a `Column`, or as a function of a run; see
            `asked_columns`.
        out: where a page is written instead: a file that ends in ``.html``, or a directory for a report.html.
            Needed for several directories. With one directory, nothing is written in it; a comparison's or an
            experiment's runs are set side by side.
        holdings: what the clients of the run or the comparison hold, which the page then shows too; the
            command ``fedtlu report --data`` counts it.

    Returns:
        The path of the page.

    Raises:
        InputError: a directory holds nothing that is finished, a column cannot be found, or `out` is missing
            or belongs to a run.
        StorageError: the files cannot be written.

    Examples:
        >>> def megabytes_per_point(run):
        ...     return run.summary["bytes_up"] / 1e6 / (100 * run.summary["test_accuracy"])
        >>> fedtlu_fast.write_report("runs/mine", [megabytes_per_point])  # doctest: +SKIP
        >>> fedtlu_fast.write_report(["runs/a", "runs/b"], out="a-and-b.html")  # doctest: +SKIP
    """
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    places, asked = [at_home(one) for one in given], asked_columns(columns)
    if not places:
        raise InputError(FIELD, given, "one directory or more")
    if out is not None or len(places) > 1:
        return _side_by_side(places, asked, out, holdings)
    (place,) = places
    if os.path.lexists(place / PLAN):
        _write_experiment(place, asked)
    elif os.path.lexists(place / COMPARISON):
        results = _arms(place)
        write_comparison_report(
            results, RunSettings.read(place), place, OwnColumns.of(results, asked), holdings
        )
    else:
        write_run_report(*_read_run(place), place, asked, holdings)
    return place / PAGE


def page_place(out: Given | None) -> tuple[Path, str]:
    """Returns directory and name of the file of a page.

    Args:
        out: a file that ends in ``.html`` or ``.htm``, or a directory.

    Raises:
        InputError: nothing is given, or the page would take the place of a run's own or of another file.
    """
    if out is None:
        raise InputError(OUT, None, "a file or a directory for the page of several runs", "Name one.")
    place = at_home(out)
    if place.suffix.lower() in (".html", ".htm") and not place.is_dir():
        folder, name = place.parent, place.name
    else:
        folder, name = place, PAGE
    if name == PAGE and any(os.path.lexists(folder / held) for held in (CONFIG, COMPARISON, PLAN)):
        expected = "a place for the page where no run has its own report"
        raise InputError(OUT, str(place), expected, "Name another directory, or a file that ends in .html.")
    if os.path.lexists(folder) and not folder.is_dir():
        expected = f"a directory, or a file that ends in .html; {folder.name} is a file"
        raise InputError(OUT, str(place), expected)
    if os.path.lexists(folder / name) and not is_page(folder / name):
        expected = "a new file, or a page that an earlier command wrote there, which is replaced"
        raise InputError(OUT, str(folder / name), expected, "Name another file, or remove this one.")
    return folder, name


def _side_by_side(
    places: Sequence[Path], columns: Sequence[Column], out: Given | None, holdings: Holdings | None
) -> Path:
    folder, name = page_place(out)
    if len(places) == 1 and not any(os.path.lexists(places[0] / held) for held in (COMPARISON, PLAN)):
        return write_page(folder, page_of_run(*_read_run(places[0]), places[0], columns, holdings), name)
    entries = read_entries(places, FIELD)
    return write_page(folder, side_by_side_page(entries, columns, holdings), name)


def _arms(place: Path) -> list[ArmResult]:
    what = "selectors and seeds of this comparison"
    arranged = parse_yaml(read_sealed_yaml(place / COMPARISON, what))
    pairs = [(selector, seed) for seed in arranged["seeds"] for selector in arranged["selectors"]]
    return [read_arm(arm_path(place, *pair), pair[0], FIELD) for pair in pairs]


def _write_experiment(place: Path, columns: Sequence[Column]) -> None:
    plan = parse_yaml(read_sealed_yaml(place / PLAN, "the plan of this experiment"))
    found = []
    for condition in plan["conditions"]:
        aggregator, _, threat = condition.partition("-")
        if not os.path.lexists(place / condition / COMPARISON):
            expected = f"a finished experiment; {condition} is missing in it"
            raise InputError(FIELD, str(place), expected, "Give the command fedtlu experiment again.")
        found.append(ConditionResult(aggregator, threat, _arms(place / condition)))
    own = OwnColumns.of([arm for result in found for arm in result.arms], columns)
    name = re.sub(r"-(small|paper)$", "", place.resolve().name)
    write_experiment_report(name, found, place, own, model=_model(place / "table.csv"))


def _model(table: Path) -> str | None:
    """Returns the model that an experiment's first table names, as the plan does not."""
    try:
        with table.open(newline="", encoding="utf-8") as file:
            return next(csv.DictReader(file))["model"]
    except (OSError, ValueError, KeyError, StopIteration):
        return None


def _read_run(place: Path) -> tuple[ArmResult, ParameterLayout, RunSettings]:
    directory, _ = RunDirectory.open(place, FIELD)
    settings = RunSettings.read(place)
    run = read_arm(place, settings.selector, FIELD)
    return run, read_layout(directory, run.selection, settings), settings
