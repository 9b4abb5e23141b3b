"""``fedtlu report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import note
from fedtlu_fast.places import at_home


def report_command(
    run_dir: Annotated[
        Path,
        typer.Argument(
            parser=at_home, metavar="RUN_DIR", help="Directory of a finished run or of a finished comparison."
        ),
    ],
    columns: options.Columns = None,
    quiet: options.Quiet = False,
) -> None:
    """Make the report of a finished run or comparison anew, with more columns perhaps; nothing is run.

    A column that gives no number shows a dash, and a line says why.
    """
    from fedtlu_fast.report.again import write_report

    page = write_report(run_dir, options.listed(columns))
    if not quiet:
        note(f"Page: {page}")
