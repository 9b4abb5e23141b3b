"""Implements ``fedtlu compare``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from fedtlu_fast.cli import completion, options, resuming
from fedtlu_fast.cli.arm_bars import ArmBars, say_diverged
from fedtlu_fast.cli.compare_default import PRESET, SEEDS, SELECTORS
from fedtlu_fast.cli.compare_runs import compare_runs
from fedtlu_fast.cli.console import note, results
from fedtlu_fast.cli.directories import place_of_run
from fedtlu_fast.cli.tables import show
from fedtlu_fast.runs.find import find_run
from fedtlu_fast.shown import visible
from fedtlu_fast.wording import RESUMED, rounds_text, seeds_text

LEAST = (
    "seconds in rounds",
    "rounds, seconds",
    "MB published",
    "MB up",
    "local ppl, trained",
    "updated",
    "mean F1",
    "local ppl",
    "local acc",
)
"""Columns that a narrow terminal omits first."""


class CompareHelp(TyperCommand):
    """The command, whose help lists every selector below its options."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes the selectors, each with the first sentence of its docstring."""
        from fedtlu_fast.cli.part_lines import lines_of

        for title, kind in (
            ("Selectors of the server", "selector"),
            ("Selectors of clients (NAME@BUDGET)", "client_selector"),
        ):
            with formatter.section(title):
                formatter.write_dl(list(lines_of(kind).items()))


def compare_command(
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            help="More runs, after --runs.",
            autocompletion=completion.runs,
            show_default=False,
        ),
    ] = None,
    selectors: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            autocompletion=completion.listed("selector", "zero_shot", "after_warmup", "local_only"),
            help=f"Selectors to compare, separated by commas (default: {SELECTORS}); all are listed below. "
            "Client selectors have a budget after @: top@2, strategic@1..4, strategic@2+lam=0.5, full@all, "
            "... smoothed, coverage rank by Eq. 1 unless a metric follows (smoothed:votes). "
            "Your own metric: fedtlu+metric=my_parts:score. "
            "Your own: my_parts:Mine, or my_parts:Mine:0.3 with the value of its first parameter. "
            "References without selection: zero_shot, after_warmup, local_only.",
        ),
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option(
            metavar="BUDGETS",
            help="Budgets of clients, such as 1,2,4,1..4; every client selector runs with each.",
        ),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="Values of a setting, such as lam=0,0.1,1; every selector that has the setting runs with "
            "each value. May be repeated.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help=f"Number of seeds, counted from --seed (default: {SEEDS})."),
    ] = None,
    preset: options.PresetOfComparisons = None,
    config: options.Config = None,
    overrides: options.Set = None,
    model: options.Model = None,
    task: options.Task = None,
    data: options.Data = None,
    partition: options.Partition = None,
    rounds: options.Rounds = None,
    clients: options.Clients = None,
    backend: options.Backend = None,
    device: options.Device = None,
    seed: options.Seed = None,
    name: options.Name = None,
    out: options.Out = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Resume a comparison: its directory, its name in runs/ or the beginning of it, or latest.",
            metavar="RUN",
            autocompletion=completion.runs,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of concurrent runs (default: one per core)."),
    ] = None,
    runs: Annotated[
        str | None,
        typer.Option(
            metavar="RUN RUN ...",
            help="Set finished runs side by side instead, and run nothing: directories, or names in runs/; "
            "also whole comparisons and experiments. With --out, a page is made too.",
            autocompletion=completion.runs,
        ),
    ] = None,
    columns: options.Columns = None,
    track: options.Trackers = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only rows and summaries, as JSON.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare selectors on the same federation with several seeds; makes a table and a picture.

    The runs of one seed share data, cohorts, batches and the warm-up. They differ only in the blocks that
    clients train and send, and that the server applies. (With participation.sampler=loss they also differ in
    the cohorts, because the clients' losses decide them.) Seconds in the table are the time of the rounds,
    without setup. The sentence below the table says what they show.

    Without options the command takes about two minutes on two cores: the server applies one of six blocks, by
    the paper's score, by the one that we recommend, at random, always the last, or all six. Preset
    quickstart applies two of six blocks.

    \b
      fedtlu compare                                    one of six blocks
      fedtlu compare --preset quickstart --selectors fedtlu,random,last,full
      fedtlu compare --selectors fedtlu,full --seeds 5
      fedtlu compare --selectors top,strategic --budgets 1,2,1..4
      fedtlu compare --runs baseline mine               runs that have finished

    With --track every run has a record of its own.

    --resume continues a stopped comparison; with it, --set may change only execution.client_errors,
    execution.client_seconds, execution.retries and checkpoint.*.

    --runs A B ... shows finished runs side by side: in what their settings differ, their results, and their
    curves.
    """
    from fedtlu_fast.config.settings import laid_over
    from fedtlu_fast.environment import data_line
    from fedtlu_fast.experiments.compare import compare, is_complete
    from fedtlu_fast.experiments.comparison_settings import comparison_settings
    from fedtlu_fast.experiments.variants import crossed, swept
    from fedtlu_fast.report.aggregate.clients import client_table
    from fedtlu_fast.report.aggregate.comparison import comparison_table
    from fedtlu_fast.report.arms import chooses
    from fedtlu_fast.report.conclusion import conclusion
    from fedtlu_fast.report.own_columns import OwnColumns, asked_columns
    from fedtlu_fast.report.pages.comparison import write_comparison_report
    from fedtlu_fast.report.pages.parts import attempt
    from fedtlu_fast.report.run_settings import RunSettings

    given = {
        "model__pretrained": model,
        "task": task,
        "data__source": data,
        "partition": partition,
        "rounds": rounds,
        "clients": clients,
        "backend": backend,
        "device": device,
        "seed": seed,
        "run_name": name,
    }
    beside = {
        "selectors": selectors,
        "budgets": budgets,
        "sweep": sweep,
        "seeds": seeds,
        "preset": preset,
        "config": config,
    }
    if runs is not None or more:
        others = {**beside, "set": overrides, "resume": resume, "jobs": jobs, "track": track, **given}
        asked_names = options.listed(columns)
        compare_runs(runs, more or [], asked_names, out, others, as_json=as_json, quiet=quiet)
        return
    asked = asked_columns(options.listed(columns))  # found before anything runs
    trackers = options.tracked(track)
    names: Sequence[str]
    numbers: Sequence[int]
    begun = find_run(resume, RESUMED, ("comparison",)) if resume is not None else None
    if begun is not None:
        resuming.refuse_beside_resume(**beside, out=out, **given)
        changes = resuming.check_free(overrides, resuming.FREE_OF_COMPARISONS)
        settings, names, numbers = comparison_settings(begun)
        settings = laid_over(settings, changes)
    else:
        settings = options.settings_from(preset, config, overrides, PRESET, **given)
        names = swept(crossed(options.listed(selectors or SELECTORS), options.listed(budgets)), sweep or [])
        numbers = range(settings.seed, settings.seed + (seeds or SEEDS))
    live = not quiet and sys.stderr.isatty()
    with place_of_run("compare", begun, out, settings.run_name or "compare", quiet=quiet) as directory:
        if begun is not None and not quiet and is_complete(settings.warmup_rounds, names, numbers, directory):
            note("There is nothing left to do: all runs of this comparison have finished")
        with ArmBars(live) as bars:
            arms = compare(
                settings,
                names,
                numbers,
                directory,
                jobs=jobs,
                resume=begun is not None,
                progress=bars.show,
                callbacks=trackers,
            )
        own = OwnColumns.of(arms, asked)
        rows = write_comparison_report(arms, RunSettings.read(directory), directory, own)
    if as_json:
        typer.echo((directory / "comparison.json").read_text(), nl=False)
    else:
        title = f"{rounds_text(settings.rounds, settings.warmup_rounds)}, {seeds_text(len(numbers))}"
        if not rows:
            return
        table = client_table if any(map(chooses, arms)) else comparison_table
        show(table(rows, title, own), "see comparison.json", LEAST)
        said = attempt("the sentence below the table", lambda: conclusion(arms)) or ""
        results.print(visible(said), markup=False, highlight=False)
        data_text = visible(f"data: {data_line(arms[0].summary)}")
        results.print(data_text, markup=False, highlight=False, soft_wrap=True)
    say_diverged(arms)
    if not quiet:
        note(f"Picture: {directory / 'plots' / 'comparison.png'}   Page: {directory / 'report.html'}")
