"""Implements ``fedtlu history``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import note, results
from fedtlu_fast.cli.files import PNG, check_place, write_plot
from fedtlu_fast.cli.tables import show
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.find import find_run


def history_command(
    run_dir: options.OneRun,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Write a picture of ranks and tau over the rounds to this file.",
            metavar="FILE.png",
            parser=at_home,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show how stable a run's ranking of blocks was, and which kinds of layers decided it.

    The first table compares targeted rounds that are 1, 2, ... rounds apart: Kendall's tau-b between their
    block scores (1 means the same order, 0 unrelated orders) and the Jaccard overlap of their chosen blocks,
    within each group of like blocks, as mean ± standard deviation.

    The second table has a row for each kind of layer (matrices, biases, norms): its share of the variance of
    the block scores within a group; the tau between the ranking by these layers alone and the actual ranking;
    and the overlap between the blocks that these layers alone would choose and the best by the score.
    """
    from fedtlu_fast.report.aggregate.history import history_json, kind_cells, read_history, stability_cells
    from fedtlu_fast.runs.as_json import dump_json

    check_place("--plot", plot, PNG)
    settings, history = read_history(find_run(run_dir, "RUN_DIR", ("run",)))
    if plot is not None:
        from fedtlu_fast.report.figures.history import history_figure

        write_plot(plot, lambda: history_figure(history.groups))
    if as_json:
        typer.echo(dump_json(history_json(settings.selector, history), indent=1))
        return
    rounds = len(history.groups[0].rounds)
    title = f"{settings.selector}, {history.metric} ({history.pooling}), {rounds} targeted rounds"
    results.print(
        f"Selection decides over {100 * history.share:.0f}% of the model's parameters (groups that are kept "
        "whole do not count).",
        highlight=False,
    )
    if history.stability:
        show(_table(f"Ranks from round to round: {title}", *stability_cells(history)), "use --json")
    else:
        note("There is only one targeted round, so ranks cannot be compared yet.")
    if history.kinds:
        show(_table("Which layers decide a block's score", *kind_cells(history)), "use --json")
        results.print("The kind of a layer is guessed from its name and shape.", highlight=False)
        if history.pooling == "pooled":
            results.print(
                "With selection.pooling=pooled the shares describe the mean of the layers' scores, "
                "which is not the score that ranks the blocks.",
                highlight=False,
            )
    else:
        note("All layers are of one kind, so there are no kinds to compare.")


def _table(title: str, heads: list[str], cells: list[list[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, justify="left" if head in ("group", "kind") else "right", overflow="fold")
    previous = ""
    for line in cells:
        if line[0] != previous:
            table.add_section()
        shown = line[0] if line[0] != previous else ""
        table.add_row(shown, *line[1:])
        previous = line[0]
    return table
