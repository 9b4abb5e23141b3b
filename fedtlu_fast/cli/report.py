"""``fedtlu report``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtlu_fast.cli import completion, options
from fedtlu_fast.cli.console import note
from fedtlu_fast.cli.directories import fresh_directory
from fedtlu_fast.errors import InputError
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.find import find_run

if TYPE_CHECKING:
    from fedtlu_fast.data.holdings import Holdings


def report_command(
    run_dirs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_DIR",
            help="Finished runs, comparisons or experiments: directories, names in runs/ or experiments/ or "
            "beginnings of them, or latest. Several are set side by side.",
            autocompletion=completion.runs,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="One page for all: a file that ends in .html, or a directory for a report.html (default for "
            "several directories: a new directory in runs/).",
            metavar="FILE|DIR",
            parser=at_home,
        ),
    ] = None,
    columns: options.Columns = None,
    data: Annotated[
        bool,
        typer.Option(
            "--data", help="Read the data of the run or comparison again, and show what each client holds."
        ),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Make the report of a finished run, comparison or experiment anew, or set several side by side.

    With one directory its tables, pictures and report.html are made anew, with more columns perhaps. With
    several directories one page shows what differs in their settings, their curves and one table; runs that
    differ only in their seed become one line with its spread. Nothing is run.

    A column that gives no number shows a dash, and a line says why.
    """
    from fedtlu_fast.report.again import write_report

    asked = options.listed(columns)
    paths = [find_run(one, "RUN_DIR", ("run", "comparison", "experiment")) for one in run_dirs]
    held = _holdings(paths) if data else None
    given = paths if len(paths) > 1 else paths[0]
    if len(paths) > 1 and out is None:
        with fresh_directory("report") as directory:
            page = write_report(given, asked, directory, held)
    else:
        page = write_report(given, asked, out, held)
    if not quiet:
        note(f"Page: {page}")


def _holdings(places: Sequence[Path]) -> Holdings:
    """Counts what the clients of a run hold, or those of a comparison's first seed.

    Raises:
        InputError: several directories or an experiment are given, the data cannot be read again, or they are
            not those that the run had.
    """
    from fedtlu_fast.build.data import load_federation
    from fedtlu_fast.config.settings import read_config
    from fedtlu_fast.data.holdings import look
    from fedtlu_fast.environment import FINGERPRINT
    from fedtlu_fast.report.run_settings import RunSettings
    from fedtlu_fast.report.sections.took_part import OWN_DATA
    from fedtlu_fast.runs.directory import CONFIG, PLAN
    from fedtlu_fast.tasks.builder import builder_of

    place = places[0]
    if len(places) > 1 or os.path.lexists(place / PLAN):
        expected = "one run or comparison beside --data"
        raise InputError("RUN_DIR", " ".join(map(str, places)), expected, "Name one of them.")
    stored = RunSettings.read(place)
    if stored.source == OWN_DATA:
        expected = "a run whose data a source reads; Python code (Federation) holds the data of this one"
        raise InputError("--data", str(place), expected, "Leave --data out.")
    settings = read_config(stored.text, place / CONFIG)
    by = settings.partition.partitioner.by
    labelled = "label_noise" in builder_of(settings.task).noises
    found = load_federation(settings)
    had = _fingerprint(place, settings.seed)
    if found.population.fingerprint != had:
        expected = f"data with the fingerprint {had[:FINGERPRINT]}, as the run had"
        fix = "Put the files back that it read, or leave --data out."
        raise InputError("--data", found.population.fingerprint[:FINGERPRINT], expected, fix)
    return look(found, settings.seed, by, labelled=labelled)


def _fingerprint(place: Path, seed: int) -> str:
    """Returns the fingerprint of the data that the runs of a seed in this directory had."""
    from fedtlu_fast.report.aggregate.entries import read_entries

    runs = [run for entry in read_entries([place], "RUN_DIR") for run in entry.runs if run.seed == seed]
    return next((str(run.summary["data_sha256"]) for run in runs if "data_sha256" in run.summary), "")
