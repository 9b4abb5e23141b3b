"""``fedtlu history``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedtlu_fast.cli.console import note, results
from fedtlu_fast.cli.files import check_place, write_plot
from fedtlu_fast.cli.tables import show
from fedtlu_fast.places import at_home


def history_command(
    run_dir: Annotated[
        Path,
        typer.Argument(
            parser=at_home, metavar="RUN_DIR", help="Directory of a run, which may still be in progress."
        ),
    ],
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
    """Show how steady a run's ranking of blocks was, and which kinds of layers decided it.

    Steadiness: Kendall's tau-b of the block scores (1 the same order, 0 unrelated) and the Jaccard overlap of
    the chosen blocks, among like blocks, between targeted rounds; by their distance in rounds, mean ± std.

    Deciding layers: the share of the score's variance between like blocks that comes from matrices, biases
    and norms; the tau between the ranking by these layers alone and the actual ranking; and the overlap
    between the best blocks by these layers alone and the best by the score, as many as were chosen.
    """
    from fedtlu_fast.report.aggregate.history import history_json, kind_cells, read_history, stability_cells
    from fedtlu_fast.runs.directory import dump_json

    check_place("--plot", plot)
    settings, history = read_history(run_dir)
    if plot is not None:
        from fedtlu_fast.report.figures.history import history_figure

        write_plot(plot, lambda: history_figure(history.groups))
    if as_json:
        typer.echo(dump_json(history_json(settings.selector, history), indent=1))
        return
    rounds = len(history.groups[0].rounds)
    title = f"{settings.selector}, {history.metric} ({history.pooling}), {rounds} targeted rounds"
    results.print(
        f"Selection decides over {100 * history.share:.0f}% of the model's parameters.", highlight=False
    )
    if history.stability:
        show(_table(f"Ranks from round to round: {title}", *stability_cells(history)), "use --json")
    else:
        note("One targeted round: nothing to compare it with yet.")
    if history.kinds:
        show(_table("Which layers decide a block's score", *kind_cells(history)), "use --json")
        results.print("Kinds are recognised by names and shapes.", highlight=False)
        if history.pooling == "pooled":
            results.print(
                "selection.pooling=pooled: the shares are of the mean of the layers' values, "
                "by which blocks are not ranked.",
                highlight=False,
            )
    else:
        note("Blocks hold one kind of layer only: there is nothing to compare.")


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
