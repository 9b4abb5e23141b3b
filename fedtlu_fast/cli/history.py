"""Implements ``fedtlu history``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedtlu_fast.cli import completion
from fedtlu_fast.cli.console import note, results
from fedtlu_fast.cli.files import PNG, check_place, write_plot
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import InputError
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.find import Kind, find_run

NAMES = ("group", "kind", "score", "needs", "block")
"""Heads of columns that hold no numbers."""


def history_command(
    run_dirs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_DIR",
            help="Run: its directory, its name in runs/ or experiments/ or the beginning of it, or latest. "
            "With --benefit, several runs, or those of a comparison, are taken together.",
            autocompletion=completion.runs,
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
    benefit: Annotated[
        bool,
        typer.Option(
            "--benefit",
            help="Show instead which scores would have found the blocks that helped most, for runs with "
            "evaluation.benefit=true.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show how stable a run's ranking of blocks was, and which kinds of layers decided it.

    The first table compares targeted rounds that are 1, 2, ... rounds apart: Kendall's tau-b between their
    block scores (1 means the same order, 0 unrelated orders) and the Jaccard overlap of their chosen blocks,
    within each group of like blocks, as mean ± standard deviation.

    The second table has a row for each kind of layer (matrices, biases, norms): its share of the variance of
    the block scores within a group; the tau between the ranking by these layers alone and the actual ranking;
    and the overlap between the blocks that these layers alone would choose and the best by the score.

    With --benefit the first table has a row for each recorded score: the share of the attainable gain that
    its choices get (100% is an oracle, 0% a random choice), and the tau between score and gain. The second
    table has a row for each block.
    """
    from fedtlu_fast.report.aggregate.history import history_json, kind_cells, read_history, stability_cells
    from fedtlu_fast.runs.as_json import dump_json

    check_place("--plot", plot, PNG)
    kinds: tuple[Kind, ...] = ("run", "comparison") if benefit else ("run",)
    paths = [find_run(one, "RUN_DIR", kinds) for one in run_dirs]
    if benefit:
        if plot is not None:
            raise InputError("--plot", str(plot), "no picture beside --benefit, which has tables only")
        _show_benefit(paths, as_json)
        return
    if len(paths) > 1:
        raise InputError("RUN_DIR", " ".join(run_dirs), "one run", "Only --benefit takes several together.")
    settings, history = read_history(paths[0])
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
    elif not history.of_layers:
        note(f"{history.metric} has scores for blocks only, not for layers, so kinds cannot be compared.")
    else:
        note("All layers are of one kind, so there are no kinds to compare.")


def _show_benefit(paths: Sequence[Path], as_json: bool) -> None:
    from fedtlu_fast.report.aggregate.benefit_history import (
        benefit_json,
        benefit_sentences,
        block_cells,
        read_benefit,
        score_cells,
    )
    from fedtlu_fast.runs.as_json import dump_json

    report = read_benefit(paths)
    if as_json:
        typer.echo(dump_json(benefit_json(report), indent=1))
        return
    show(_table("Which scores find the blocks that help", *score_cells(report)), "use --json")
    show(_table("How much each block helps", *block_cells(report)), "use --json")
    for sentence in benefit_sentences(report):
        results.print(sentence, highlight=False)


def _table(title: str, heads: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, justify="left" if head in NAMES else "right", overflow="fold")
    previous = ""
    for line in cells:
        if line[0] != previous:
            table.add_section()
        shown = line[0] if line[0] != previous else ""
        table.add_row(shown, *line[1:])
        previous = line[0]
    return table
