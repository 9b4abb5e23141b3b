"""``fedtlu compare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import notes, results

if TYPE_CHECKING:
    from fedtlu_fast.simulation.compare import Arm


def compare_command(
    selectors: Annotated[str, typer.Option(help="Which, separated by commas.")] = "fedtlu,random,last,full",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, counted from --seed.")] = 2,
    preset: options.Preset = None,
    config: options.Config = None,
    overrides: options.Set = None,
    model: options.Model = None,
    data: options.Data = None,
    partition: options.Partition = None,
    rounds: options.Rounds = None,
    clients: options.Clients = None,
    backend: options.Backend = None,
    device: options.Device = None,
    seed: options.Seed = None,
    out: options.Out = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the comparison in this directory.", metavar="DIR")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time (default: one per core).")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print rows and summaries as JSON, and nothing else.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Run several selectors on the same federation, with several seeds: one table and one picture.

    The runs of one seed share data, cohorts, batches and the warm-up; only what the server applies
    differs. With no options it takes under three minutes on two cores.
    """
    from fedtlu_fast.report.tables import comparison_table
    from fedtlu_fast.report.write import write_comparison_report
    from fedtlu_fast.simulation.compare import compare, comparison_config

    given = {
        "model__pretrained": model,
        "data__source": data,
        "partition": partition,
        "rounds": rounds,
        "clients": clients,
        "backend": backend,
        "device": device,
        "seed": seed,
    }
    if resume is not None:
        settings, directory = comparison_config(resume), resume
    else:
        settings = options.settings_from(preset, config, overrides, **given)
        directory = out or options.fresh_directory("compare")
    names = [name.strip() for name in selectors.split(",") if name.strip()]
    live = not quiet and sys.stderr.isatty()
    with _Bars(live, settings.rounds) as bars:
        arms = compare(
            settings,
            names,
            range(settings.seed, settings.seed + seeds),
            directory,
            jobs=jobs,
            resume=resume is not None,
            progress=bars.show,
        )
    rows = write_comparison_report(arms, settings, directory)
    if as_json:
        typer.echo((directory / "comparison.json").read_text(), nl=False)
    else:
        title = f"{settings.rounds} rounds ({settings.warmup_rounds} warm-up), {seeds} seeds: mean ± std"
        results.print(comparison_table(rows, title))
    if not quiet:
        notes.print(
            f"Picture: {directory / 'plots' / 'comparison.png'}   Page: {directory / 'report.html'}",
            highlight=False,
        )


class _Bars:
    """One progress bar per arm."""

    def __init__(self, live: bool, rounds: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=notes,
            disable=not live,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def show(self, arm: Arm, done: int) -> None:
        """Brings an arm's bar up to date."""
        if arm.name not in self.tasks:
            self.tasks[arm.name] = self.progress.add_task(arm.name, total=arm.until)
        self.progress.update(self.tasks[arm.name], completed=done)
