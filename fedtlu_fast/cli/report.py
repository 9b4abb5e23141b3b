"""``fedtlu report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtlu_fast.cli import completion, options
from fedtlu_fast.cli.console import note
from fedtlu_fast.cli.directories import fresh_directory
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.find import find_run


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
    if len(paths) > 1 and out is None:
        with fresh_directory("report") as directory:
            page = write_report(paths, asked, directory)
    else:
        page = write_report(paths if len(paths) > 1 else paths[0], asked, out)
    if not quiet:
        note(f"Page: {page}")
