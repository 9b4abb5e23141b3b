"""Sets finished runs side by side for ``fedtlu compare --runs``; nothing is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from fedtlu_fast.cli.console import note, results
from fedtlu_fast.cli.resuming import refuse
from fedtlu_fast.cli.sparkline import sparkline
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import InputError
from fedtlu_fast.runs.find import find_run
from fedtlu_fast.shown import shell_word, visible

if TYPE_CHECKING:
    from fedtlu_fast.report.aggregate.entries import Entry
    from fedtlu_fast.report.own_columns import OwnColumns

FIELD = "--runs"


def compare_runs(
    first: str | None,
    more: Sequence[str],
    columns: Sequence[str],
    out: Path | None,
    others: Mapping[str, Any],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Prints in what the settings of finished runs differ, their results and their curves.

    Args:
        first: the value of ``--runs``; None if it is missing.
        more: the other runs, which are arguments.
        columns: more columns of the table of results; see `own_columns.asked_columns`.
        out: a file or directory for the page that `write_report` makes of the same runs; None for no page.
        others: values of options that mean nothing here; see `resuming.refuse`.
        as_json: whether to print everything as JSON instead.
        quiet: whether to print results only.

    Raises:
        InputError: A run cannot be found or has not finished, there are fewer than two, or an option is given
            that means nothing here.
    """
    if first is None:
        finished = f"Write {FIELD} {' '.join(more)} for runs that have finished"
        hint = f"{finished}, or --out for the directory of new ones."
        raise InputError("RUN", more[0], f"no argument without {FIELD}", hint)
    refuse(others, f"no value beside {FIELD}, which runs nothing", "Leave one of the two out.")
    paths = [find_run(text, FIELD) for text in (first, *more)]
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(FIELD, [first, *more], "runs, each once")

    from fedtlu_fast.report.again import write_report
    from fedtlu_fast.report.aggregate.entries import read_entries
    from fedtlu_fast.report.own_columns import OwnColumns, asked_columns

    asked = asked_columns(columns)
    entries = read_entries(paths, FIELD)
    runs = [run for entry in entries for run in entry.runs]
    if len(runs) < 2:
        raise InputError(FIELD, first, "two or more runs, or a comparison", "Name another run behind it.")
    own = OwnColumns.of(runs, asked)
    page = write_report(paths, columns, out) if out is not None else None
    if as_json:
        _print_json(entries, own)
        return
    _show_differences(entries)
    _show_results(entries, own)
    _show_curves(entries)
    if not quiet:
        words = " ".join(map(shell_word, paths))
        note(f"Page: {page}" if page is not None else f"For a page with charts: fedtlu report {words}")


def _print_json(entries: Sequence[Entry], own: OwnColumns) -> None:
    from fedtlu_fast.report.aggregate.comparison import comparison_rows
    from fedtlu_fast.report.aggregate.entries import differing
    from fedtlu_fast.runs.as_json import dump_json

    rows = comparison_rows([run for entry in entries for run in entry.runs], own)
    found = {
        "runs": [
            {
                "name": entry.name,
                "seeds": entry.seeds,
                "paths": list(map(str, entry.places)),
                "summaries": [run.summary for run in entry.runs],
            }
            for entry in entries
        ],
        "differences": {
            setting: {entry.name: entry.settings[setting] for entry in entries if setting in entry.settings}
            for setting in differing(entries)
        },
        "table": [
            {"name": row["selector"], **{key: row[key] for key in row if key != "selector"}} for row in rows
        ],
    }
    typer.echo(dump_json(found, indent=1))


def _show_differences(entries: Sequence[Entry]) -> None:
    from fedtlu_fast.report.aggregate.entries import differing, setting_text

    apart = differing(entries)
    if not apart:
        results.print("Their settings are the same.", highlight=False)
        return
    table = Table(title="In what their settings differ", title_justify="left")
    for head in ("setting", *(entry.name for entry in entries)):
        table.add_column(head, overflow="fold")
    for setting in apart:
        table.add_row(setting, *(setting_text(entry, setting) for entry in entries))
    show(table, "use --json")


def _show_results(entries: Sequence[Entry], own: OwnColumns) -> None:
    from fedtlu_fast.report.aggregate.comparison import comparison_cells, comparison_rows
    from fedtlu_fast.report.tables import terminal_table

    rows = comparison_rows([run for entry in entries for run in entry.runs], own)
    heads, cells = comparison_cells(rows, own)
    told = [
        [line[0], str(len(entry.runs)), f"{entry.runs[0].summary['rounds']:,}", *line[1:]]
        for line, entry in zip(cells, entries, strict=True)
    ]
    title = "Their results"
    if any(len(entry.runs) > 1 for entry in entries):
        title += ": mean ± std over runs that differ only in their seed"
    show(terminal_table((["run", "seeds", "rounds", *heads[1:]], told), title, left=("run",)), "use --json")


def _show_curves(entries: Sequence[Entry]) -> None:
    """Prints a curve for every entry: the global test over the rounds, all on one scale."""
    from fedtlu_fast.report.aggregate.curves import quality_curves
    from fedtlu_fast.report.headline import headline_of_arms

    runs = [run for entry in entries for run in entry.runs]
    figure = headline_of_arms(runs)
    curves = {name: one for name, one in quality_curves(runs, figure).items() if one.rounds}
    if not curves:
        return
    means = {name: [float(value) for value in one.mean()] for name, one in curves.items()}
    every = [value for values in means.values() for value in values]
    # One character stands for as many rounds in every curve.
    last = max(one.rounds[-1] for one in curves.values())
    room = min(max(10, results.width - 60), last)
    grid = Table.grid(padding=(0, 2))
    for name, one in curves.items():
        width = max(1, round(room * one.rounds[-1] / last))
        curve = sparkline(means[name], width, (min(every), max(every)))
        ends = f"{means[name][0]:.4g} → {means[name][-1]:.4g}"
        grid.add_row(Text(visible(name)), Text(curve, style="cyan"), ends)
    results.print(f"{figure.label}, over the rounds", highlight=False, markup=False)
    results.print(grid)
