"""``fedtlu run``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import note, notes
from fedtlu_fast.cli.dry_run import show_estimate
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import FedtluError, InterruptedRunError
from fedtlu_fast.places import at_home
from fedtlu_fast.shown import visible

if TYPE_CHECKING:
    from fedtlu_fast.config import RunConfig
    from fedtlu_fast.simulation.run import Run
    from fedtlu_fast.simulation.stopping import StopRequest

MOST_SHOWN = 4
"""Chosen blocks named in the progress line."""


def run_command(
    preset: options.Preset = None,
    config: options.Config = None,
    overrides: options.Set = None,
    selector: Annotated[str | None, typer.Option(help="fedtlu, random, last, first or full.")] = None,
    model: options.Model = None,
    task: options.Task = None,
    data: options.Data = None,
    partition: options.Partition = None,
    rounds: options.Rounds = None,
    clients: options.Clients = None,
    backend: options.Backend = None,
    device: options.Device = None,
    executor: options.Executor = None,
    workers: options.Workers = None,
    seed: options.Seed = None,
    out: options.Out = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with the run in this directory.",
            metavar="DIR",
            parser=at_home,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it needs in memory, disk and time; write nothing.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Run one federation and leave its settings, metrics, choices, checkpoints and report.

    With no options: 100 clients hold parts of the Python language reference, a small GPT-2 learns it, and
    FedTLU chooses the blocks. A run that was killed goes on by --resume DIR, to the same bits; beside it,
    --executor, --workers and --set of execution.* and checkpoint.* may change. Ctrl-C or SIGTERM ends it
    after the round under way; a second Ctrl-C ends it at once.
    """
    given = {
        "selection__selector": selector,
        "model__pretrained": model,
        "task": task,
        "data__source": data,
        "partition": partition,
        "rounds": rounds,
        "clients": clients,
        "backend": backend,
        "device": device,
        "seed": seed,
    }
    who = {"execution__executor": executor, "execution__workers": workers}
    if resume is not None:
        options.refuse_beside_resume(preset=preset, config=config, out=out, **given)
        settings = options.resumed(resume, overrides, **who)
    else:
        settings = options.settings_from(preset, config, overrides, **given, **who)
    if dry_run:
        show_estimate(settings, as_json)
        return
    named, fresh = resume or out, f"{settings.selection.selector}-seed{settings.seed}"
    with (
        nullcontext(named) if named is not None else options.fresh_directory(fresh) as directory,
        options.saying_how_to_go_on("run", directory),
    ):
        summary, trouble = _simulate(settings, directory, resume is not None, quiet)
    if as_json:
        from fedtlu_fast.runs.directory import dump_json

        typer.echo(dump_json(summary, indent=1))
    else:
        show(_table(summary), "summary.json has them")
    if not quiet:
        note(f"Files in {directory} (report.html first)")
    if trouble:
        raise FedtluError(trouble)


def _simulate(settings: RunConfig, directory: Path, resume: bool, quiet: bool) -> tuple[dict[str, Any], str]:
    """The run's summary, and why it ended early, if it did so by itself.

    Raises:
        InterruptedRunError: it was asked to stop before its end, and did after a round.
    """
    from fedtlu_fast.report.pages.run import write_run_report
    from fedtlu_fast.simulation.run import Run
    from fedtlu_fast.simulation.stopping import stop_on_signals

    live = not quiet and sys.stderr.isatty()
    with notes.status("Reading data, building the model") if live else nullcontext():
        run = Run(settings, directory, resume=resume)
    with closing(run):
        if live and run.note:
            note(run.note)
        if run.was_finished and not quiet:
            note(f"Nothing was left to do: this run had finished, after round {run.state.round}")
        with stop_on_signals(
            lambda name: note(f"{name}: ending after this round; Ctrl-C ends at once")
        ) as stop:
            _advance(run, stop, live)
        if run.state.round < settings.rounds and not run.diverged:
            raise InterruptedRunError(run.how_to_go_on(), stop)
        result = run.finish()
    write_run_report(result, run.config, directory)
    return result.summary, run.how_it_diverged() if run.diverged else ""


def _advance(run: Run, stop: StopRequest, live: bool) -> None:
    from fedtlu_fast.report.figures.plots import short_names

    names = [run.layout.blocks[block].name for group in run.layout.groups for block in group.blocks]
    choosable = dict(zip(names, short_names(names), strict=True))
    with _progress(live) as progress:
        task = progress.add_task("", total=run.config.rounds, completed=run.state.round, status="", rate="")

        def show(row: dict[str, Any]) -> None:
            rate = f"{row['trained'] / row['seconds']:,.3g} clients/s"
            progress.update(task, completed=row["round"], status=visible(_status(row, choosable)), rate=rate)

        run.advance(run.config.rounds, show, stop)


def _progress(live: bool) -> Progress:
    return Progress(
        TextColumn("round"),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[status]}", markup=False),
        console=notes,
        disable=not live,
    )


def _status(row: dict[str, Any], choosable: Mapping[str, str]) -> str:
    """What a round did; of the blocks only those that were chosen, not those that are always updated.

    Args:
        row: of metrics.jsonl.
        choosable: short names of the blocks that are chosen among.
    """
    tested = f"perplexity {row['test_perplexity']:.1f}" if row["test_perplexity"] is not None else ""
    names = [choosable[name] for name in row["selected"] if name in choosable]
    more = [f"+{len(names) - MOST_SHOWN}"] if len(names) > MOST_SHOWN else []
    chosen = "warm-up: all" if row["warmup"] and row["selected"] else " ".join([*names[:MOST_SHOWN], *more])
    refused = f"refused {len(row['refused'])}" if row["refused"] else ""
    dropped = f"dropped {len(row['dropped'])}" if row["dropped"] else ""
    parts = (
        f"loss {row['train_loss']:.3f}" if row["train_loss"] is not None else "",
        tested,
        f"accuracy {100 * row['test_accuracy']:.1f}%" if row.get("test_accuracy") is not None else "",
        chosen,
        refused,
        dropped,
        f"not finite, left out: {len(row['nonfinite_blocks'])} blocks" if row["nonfinite_blocks"] else "",
        "too few clients for the rule: nothing changed" if row["kept_clients"] == [] else "",
    )
    return "  ".join(part for part in parts if part)


def _table(summary: dict[str, Any]) -> Table:
    table = Table(
        title=f"{summary['selector']}, seed {summary['seed']}", show_header=False, title_justify="left"
    )
    from fedtlu_fast.environment import data_line

    before, after = summary["untrained_local_perplexity"], summary["trained_local_perplexity"]
    lines = {
        "rounds": f"{summary['rounds']} ({summary['warmup_rounds']} warm-up, "
        f"{summary['targeted_rounds']} targeted)",
        "data": data_line(summary),
        "global perplexity": _number(summary["test_perplexity"]),
        "the same before round 1": _number(summary["start_test_perplexity"]),
        "local perplexity": _number(summary["local_perplexity"]),
        f"the same, {summary['trained_clients']} clients: before, after they train once more": (
            f"{_number(before)}, {_number(after)}"
        ),
        **_accuracies(summary),
        "parameters updated in a targeted round": f"{100 * summary['updated_share']:.1f}%",
        "refused client updates": str(summary["refused_updates"]),
        "seconds in rounds": f"{summary['seconds']:.1f}",
        "params_sha256": summary["params_sha256"],
    }
    for name, text in lines.items():
        table.add_row(name, text)
    table.columns[1].overflow = "fold"
    return table


def _accuracies(summary: dict[str, Any]) -> dict[str, str]:
    """Of tasks that have them."""
    lines = {
        "global accuracy": "test_accuracy",
        "global accuracy before round 1": "start_test_accuracy",
        "local accuracy": "local_accuracy",
    }
    shown = {name: summary[key] for name, key in lines.items() if summary[key] is not None}
    texts = {name: f"{100 * value:.2f}%" for name, value in shown.items()}
    macro = summary["test_macro_f1"]
    return texts if macro is None else {**texts, "mean F1 of the labels": f"{macro:.4f}"}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
