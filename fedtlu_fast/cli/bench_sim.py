"""Implements ``fedtlu bench-sim``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import note, notes
from fedtlu_fast.cli.files import check_place, header_of, write_csv
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import FedtluError, not_one_of
from fedtlu_fast.places import at_home
from fedtlu_fast.profiling.federations.workloads import NAMES

if TYPE_CHECKING:
    from fedtlu_fast.profiling.simulators import Simulator, SimulatorRow


def bench_sim_command(
    workloads: Annotated[
        str,
        typer.Option(metavar="NAMES", help=f"Federations to time, separated by commas: {', '.join(NAMES)}."),
    ] = "mlp",
    systems: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Simulators to time (such as fedtlu) or modes of them (such as fedtlu:serial), separated by "
            "commas (default: all).",
        ),
    ] = None,
    rivals: Annotated[
        Path | None,
        typer.Option(
            help="Folder of other simulators to time too (benchmarks/rivals, after its setup.sh has run).",
            metavar="DIR",
            parser=at_home,
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=2, help="Rounds per run; the first is not counted.")
    ] = 8,
    runs: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each simulator, interleaved.")] = 3,
    clients: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Clients in the federation (default: the workload's)."),
    ] = None,
    cohort: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Clients in a round (default: the workload's).")
    ] = None,
    csv_file: options.Csv = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Time rounds of the same federation in fedtlu, in a plain PyTorch loop, and in other simulators.

    The workload mlp trains a 64-64-10 perceptron: 10,000 clients, 1000 per round, 2 steps of 10 samples. gpt:
    a GPT-2 of a million parameters, 100 clients, 10 per round, 5 steps of 16 texts of 64 tokens. cnn: two
    convolutions on images as in FEMNIST, 1000 clients, 100 per round, 2 steps of 10. lstm: two LSTM layers on
    80 characters as in Shakespeare, 700 clients, 10 per round, 2 steps of 10. lora: adapters of rank 8 on a
    frozen GPT-2 of five million parameters, 100 clients, 10 per round, 4 steps of 4 texts of 64 tokens.
    The simulators run one after another, each in its own process. The time per round is the median of all
    rounds except the first; memory is the peak of all processes of a simulator together.
    """
    from fedtlu_fast.profiling.simulators import SimulatorRow, measure, rows, simulators
    from fedtlu_fast.runs.as_json import dump_json

    names = [name.strip() for name in workloads.split(",") if name.strip()]
    for name in names:
        if name not in NAMES:
            raise not_one_of("--workloads", name, NAMES)
    check_place("--csv", csv_file, header_of(SimulatorRow))
    chosen = _chosen(simulators(rivals), systems)
    size = [f"--{key}={value}" for key, value in (("clients", clients), ("cohort", cohort)) if value]
    found: list[tuple[Simulator, dict[str, Any]]] = []
    quiet = not sys.stderr.isatty()
    with nullcontext() if quiet else notes.status("Measuring"):
        for name in names:
            for simulator, result in measure(chosen, name, rounds, runs, size):
                if isinstance(result, str):
                    note(f"{simulator.name}, {name}: skipped, {result}")
                else:
                    found.append((simulator, result))
    if not found:
        raise FedtluError("no simulator finished its run")
    made = rows(found)
    if csv_file is not None:
        write_csv(csv_file, SimulatorRow, made)
    if as_json:
        typer.echo(dump_json([asdict(row) for row in made], indent=1))
    else:
        show(_table(made), "use --csv or --json")


def _chosen(known: list[Simulator], systems: str | None) -> list[Simulator]:
    if systems is None:
        return known
    chosen = []
    for part in filter(None, (part.strip() for part in systems.split(","))):
        system, _, mode = part.partition(":")
        matching = [s for s in known if s.system == system and mode in ("", s.mode)]
        if not matching:
            names = sorted({f"{s.system}:{s.mode}" for s in known})
            raise not_one_of("--systems", part, names, "some of")
        chosen += matching
    return chosen


def _table(rows: list[SimulatorRow]) -> Table:
    table = Table(title="The same federation in several simulators", title_justify="left")
    for head in ("workload", "system"):
        table.add_column(head, no_wrap=True)
    for head in ("s a round", "times ours", "first round, s", "import, s", "peak MB", "loss after"):
        table.add_column(head, justify="right")
    previous = None
    for row in rows:
        if row.workload != previous:
            table.add_section()
        table.add_row(
            f"{row.workload}, {row.clients:,} / {row.cohort:,}" if row.workload != previous else "",
            f"{row.system} ({row.version})",
            f"{row.seconds_per_round:.3g}",
            f"{row.times_ours:.2f}" if row.times_ours is not None else "",
            f"{row.first_round_seconds:.2f}",
            f"{row.import_seconds:.2f}",
            f"{row.peak_mb:,.0f}",
            f"{row.loss_after:.4f}",
        )
        previous = row.workload
    return table
