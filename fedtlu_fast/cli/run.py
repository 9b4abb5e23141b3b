"""Implements ``fedtlu run``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fedtlu_fast.cli import completion, options, resuming
from fedtlu_fast.cli.console import note, notes
from fedtlu_fast.cli.directories import place_of_run
from fedtlu_fast.cli.dry_run import show_estimate
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import FedtluError, InterruptedRunError
from fedtlu_fast.runs.find import find_run
from fedtlu_fast.wording import RESUMED

if TYPE_CHECKING:
    from fedtlu_fast.config import RunConfig
    from fedtlu_fast.simulation.callbacks import Callback


def run_command(
    preset: options.Preset = None,
    config: options.Config = None,
    overrides: options.Set = None,
    selector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completion.parts("selector"),
            help="Selector, which chooses the blocks: fedtlu (default), random, last, first or full.",
        ),
    ] = None,
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
    name: options.Name = None,
    out: options.Out = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Resume a run: its directory, its name in runs/ or the beginning of it, or latest.",
            metavar="RUN",
            autocompletion=completion.runs,
        ),
    ] = None,
    columns: options.Columns = None,
    track: options.Trackers = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only show how much memory, disk and time the run needs."),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Run one federation; writes settings, metrics, choices, checkpoints and a report to a directory.

    Without options, 100 clients hold parts of Python's documentation, a small GPT-2 learns it, and FedTLU
    chooses the blocks that are updated. The first line says where the files go; `fedtlu watch` shows the
    progress in another terminal, and `fedtlu runs` lists earlier runs.

    Ctrl-C or SIGTERM ends the run after the current round; a second Ctrl-C ends it immediately. --resume RUN
    continues a run that was stopped or killed, and gives the same bits as a run without interruption. With
    --resume, only --executor, --workers, --set of execution.* and checkpoint.*, and --rounds may be given;
    more rounds make the run longer.
    """
    given = {
        "selection__selector": selector,
        "model__pretrained": model,
        "task": task,
        "data__source": data,
        "partition": partition,
        "clients": clients,
        "backend": backend,
        "device": device,
        "seed": seed,
        "run_name": name,
    }
    free = {"execution__executor": executor, "execution__workers": workers, "rounds": rounds}
    begun = find_run(resume, RESUMED, ("run",)) if resume is not None else None
    if begun is not None:
        resuming.refuse_beside_resume(preset=preset, config=config, out=out, **given)
        settings = resuming.resumed(begun, overrides, **free)
    else:
        settings = options.settings_from(preset, config, overrides, **given, **free)
    if dry_run:
        show_estimate(settings, as_json)
        return
    from fedtlu_fast.report.callback import WriteReport

    fresh = settings.run_name or f"{settings.selection.name_of('selector')}-seed{settings.seed}"
    with place_of_run("run", begun, out, fresh, quiet=quiet) as directory:
        callbacks = [WriteReport(options.listed(columns)), *options.tracked(track)]
        summary, trouble = _simulate(settings, directory, begun is not None, quiet, callbacks)
    if as_json:
        from fedtlu_fast.runs.as_json import dump_json

        typer.echo(dump_json(summary, indent=1))
    else:
        show(_table(summary), "see summary.json")
    if not quiet:
        note(f"Files in {directory} (report.html first)")
    if trouble:
        raise FedtluError(trouble)


def _simulate(
    settings: RunConfig, directory: Path, resume: bool, quiet: bool, callbacks: Sequence[Callback]
) -> tuple[dict[str, Any], str]:
    """Runs the federation; returns its summary, and a message if the model diverged (else "").

    Raises:
        InterruptedRunError: A signal stopped the run after a round.
    """
    from fedtlu_fast.build.run import open_run
    from fedtlu_fast.cli.progress import ProgressBar
    from fedtlu_fast.simulation.endings import how_it_diverged
    from fedtlu_fast.stopping import stop_on_signals

    live = not quiet and sys.stderr.isatty()
    bar = ProgressBar(live)
    with notes.status("Reading data, building the model") if live else nullcontext():
        run = open_run(settings, directory, resume=resume, callbacks=[bar, *callbacks])
    with closing(run):
        if live and run.note:
            note(run.note)
        if run.was_finished and not quiet:
            note(f"There is nothing left to do: this run has finished, after round {run.state.round}")
        with (
            stop_on_signals(
                lambda name: note(f"{name}: ending after this round; Ctrl-C ends immediately")
            ) as stop,
            bar.shown(),
        ):
            run.advance(settings.rounds, stop)
        if run.state.round < settings.rounds and not run.over:
            raise InterruptedRunError(run.how_to_resume(), stop)
        result = run.finish()
    if (stopped := result.summary["stopped"]) and not quiet:
        note(f"Stopped after round {run.state.round} of {settings.rounds}: {stopped}")
    return result.summary, how_it_diverged(run.state.round, settings.rounds) if run.diverged else ""


def _table(summary: dict[str, Any]) -> Table:
    table = Table(
        title=f"{summary['selector']}, seed {summary['seed']}", show_header=False, title_justify="left"
    )
    from fedtlu_fast.environment import data_line

    lines = {
        "rounds": f"{summary['rounds']} ({summary['warmup_rounds']} warm-up, "
        f"{summary['targeted_rounds']} targeted)",
        "data": data_line(summary),
        **_perplexities(summary),
        **_figures(summary),
        "parameters updated in a targeted round": f"{100 * summary['updated_share']:.1f}%",
        **_malicious(summary),
        **({"epsilon spent": _number(summary["epsilon"])} if "epsilon" in summary else {}),
        "refused client updates": str(summary["refused_updates"]),
        "seconds in rounds": f"{summary['seconds']:.1f}",
        "params_sha256": summary["params_sha256"],
    }
    for name, text in lines.items():
        table.add_row(name, text)
    table.columns[1].overflow = "fold"
    return table


def _malicious(summary: dict[str, Any]) -> dict[str, str]:
    """Returns the line about threats; empty for runs without any."""
    if (clients := summary["malicious_clients"]) is None:
        return {}
    return {"noisy or malicious clients that trained": f"{clients}, {summary['malicious_updates']} times"}


def _perplexities(summary: dict[str, Any]) -> dict[str, str]:
    """Returns the lines about perplexities; empty for tasks without them."""
    if "perplexity" not in summary["figures"]:
        return {}
    before, after = summary["untrained_local_perplexity"], summary["trained_local_perplexity"]
    again = f"  of {summary['trained_clients']} clients, before and after training once more"
    return {
        "global perplexity": _number(summary["test_perplexity"]),
        "  before round 1": _number(summary["start_test_perplexity"]),
        "local perplexity": _number(summary["local_perplexity"]),
        again: f"{_number(before)}, {_number(after)}",
    }


def _figures(summary: dict[str, Any]) -> dict[str, str]:
    """Returns the lines about the other figures of the task; the loss only if it is the headline."""
    texts: dict[str, str] = {}
    for name, facts in summary["figures"].items():
        if name == "perplexity" or (name == "loss" and summary["headline"] != name):
            continue
        title = facts["title"]
        lines = {
            f"global {title}": f"test_{name}",
            f"global {title} before round 1": f"start_test_{name}",
            f"local {title}": f"local_{name}",
        }
        shown = {line: summary[key] for line, key in lines.items() if summary[key] is not None}
        form = "{:.2%}" if facts["percent"] else "{:.4g}"
        texts |= {line: form.format(value) for line, value in shown.items()}
    macro = summary["test_macro_f1"]
    return texts if macro is None else {**texts, "mean F1 of the labels": f"{macro:.4f}"}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
