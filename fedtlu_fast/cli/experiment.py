"""Implements ``fedtlu experiment``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedtlu_fast.cli import completion, options
from fedtlu_fast.cli.arm_bars import ArmBars, say_diverged
from fedtlu_fast.cli.console import note
from fedtlu_fast.cli.directories import say_where
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import InterruptedRunError, ResumableError, not_one_of
from fedtlu_fast.places import at_home
from fedtlu_fast.shown import shell_word
from fedtlu_fast.wording import rounds_text

SEEDS = 3


def experiment_command(
    name: Annotated[
        str,
        typer.Argument(
            help="The experiment: udpos-transformer, udpos-gpt2, ptb-transformer or ptb-gpt2.",
            metavar="NAME",
            autocompletion=completion.words("udpos-transformer", "udpos-gpt2", "ptb-transformer", "ptb-gpt2"),
        ),
    ],
    scale: Annotated[
        str,
        typer.Option(
            metavar="SCALE", help="Size: small (minutes on two cores) or paper (150 rounds; needs a GPU)."
        ),
    ] = "small",
    seeds: Annotated[int, typer.Option(metavar="N", min=1, help="Number of seeds, counted from 0.")] = SEEDS,
    data: options.Data = None,
    model: options.Model = None,
    aggregators: Annotated[
        str, typer.Option(metavar="NAMES", help="Aggregators, separated by commas.")
    ] = "fedavg,fedprox",
    threats: Annotated[
        str, typer.Option(metavar="NAMES", help="Threats, separated by commas.")
    ] = "clean,noisy,malicious",
    selectors: Annotated[
        str, typer.Option(metavar="NAMES", help="Selectors, separated by commas.")
    ] = "fedtlu,random,last,full",
    overrides: options.Set = None,
    device: options.Device = None,
    run_name: options.Name = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory for the files (default: experiments/NAME-SCALE, and -NAME of --name behind it). "
            "Finished runs in it are kept.",
            metavar="DIR",
            parser=at_home,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of concurrent runs (default: one per core)."),
    ] = None,
    columns: options.Columns = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table's rows as JSON.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Run an experiment of the FedTLU paper; makes one table.

    The experiment runs every combination of aggregators, threats, selectors and seeds. Without --data, text
    that comes with Python replaces the paper's data; the paper's data are a Universal Dependencies treebank
    (--data udpos:DIR) and the Penn Treebank (--data ptb:DIR).

    The same command resumes a stopped experiment; --set may then change only execution.client_errors,
    execution.client_seconds, execution.retries and checkpoint.*.
    """
    from fedtlu_fast.experiments.compare import is_complete
    from fedtlu_fast.experiments.experiment import conditions, experiment_settings, run_experiment
    from fedtlu_fast.report.aggregate.experiment import experiment_table
    from fedtlu_fast.report.own_columns import OwnColumns, asked_columns
    from fedtlu_fast.report.pages.experiment import write_experiment_report
    from fedtlu_fast.runs.as_json import dump_json
    from fedtlu_fast.runs.directory import PLAN

    if scale not in ("small", "paper"):
        raise not_one_of("--scale", scale, ("small", "paper"))
    asked = asked_columns(options.listed(columns))  # found before anything runs
    given = {
        "data.source": data,
        "model.pretrained": model,
        "device": device or _best_device(scale),
        "run_name": run_name,
    }
    settings = options.from_everywhere(
        experiment_settings(
            name,
            "paper" if scale == "paper" else "small",
            [
                *(f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None),
                *(overrides or []),
            ],
        )
    )
    grid = conditions(settings, options.listed(aggregators), options.listed(threats))
    arms = options.listed(selectors), range(seeds)
    directory = out or Path("experiments") / "-".join([name, scale, *([run_name] if run_name else [])])
    if not quiet:
        say_where(directory)
    # Unlike Path.exists, it returns False for a name that the system refuses.
    live, begun = not quiet and sys.stderr.isatty(), os.path.isfile(directory / PLAN)
    finished = (is_complete(one.config.warmup_rounds, *arms, directory / one.name) for one in grid)
    over = begun and not quiet and all(finished)
    again = f"you can resume it with the same command: fedtlu {' '.join(map(shell_word, sys.argv[1:]))}"
    try:
        with ArmBars(live) as bars:
            found = run_experiment(
                grid,
                *arms,
                directory,
                jobs=jobs,
                progress=bars.show,
                resume=begun,
            )
        if over:  # only now, because a plan that differs from the first one is refused
            note("There is nothing left to do: all runs of this experiment have finished")
        own = OwnColumns.of([arm for result in found for arm in result.arms], asked)
        rows = write_experiment_report(name, found, directory, own)
    except (KeyboardInterrupt, InterruptedRunError) as interrupt:
        raise InterruptedRunError(f"finished runs are kept; {again}", interrupt) from None
    except ResumableError as error:
        error.how_to_resume = again
        raise
    if as_json:
        typer.echo(dump_json(rows, indent=1))
    else:
        rounds = rounds_text(settings.rounds, settings.warmup_rounds)
        title = f"{name}, {scale}: {rounds}, {seeds} seeds, data {settings.data.source}"
        show(experiment_table(rows, title, own), "see table.md")
    say_diverged([arm for result in found for arm in result.arms])
    if not quiet:
        note(f"Files in {directory} (report.html first)")


def _best_device(scale: str) -> str | None:
    """Returns ``cuda`` for the paper's scale if there is a GPU; else None, which keeps the default."""
    import torch

    return "cuda" if scale == "paper" and torch.cuda.is_available() else None
