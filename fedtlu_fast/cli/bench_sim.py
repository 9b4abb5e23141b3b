"""Implements ``fedtlu bench-sim``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import note
from fedtlu_fast.cli.files import check_place, header_of, write_csv
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import FedtluError, InputError, InterruptedRunError, not_one_of
from fedtlu_fast.places import at_home
from fedtlu_fast.profiling.federations.workloads import NAMES

if TYPE_CHECKING:
    from fedtlu_fast.profiling.journal import Journal
    from fedtlu_fast.profiling.simulator_rows import SimulatorRow
    from fedtlu_fast.profiling.simulators import Simulator


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
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue an interrupted measurement: keep the runs beside the file of --csv."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Time rounds of the same federation in fedtlu, in a plain PyTorch loop, and in other simulators.

    The workload mlp trains a 64-64-10 perceptron: 10,000 clients, 1000 per round, 2 steps of 10 samples. gpt:
    a GPT-2 of a million parameters, 100 clients, 10 per round, 5 steps of 16 texts of 64 tokens. cnn: two
    convolutions on images as in FEMNIST, 1000 clients, 100 per round, 2 steps of 10. lstm: two LSTM layers on
    80 characters as in Shakespeare, 700 clients, 10 per round, 2 steps of 10. lora: adapters of rank 8 on a
    frozen GPT-2 of five million parameters, 100 clients, 10 per round, 4 steps of 4 texts of 64 tokens.
    The simulators run one after another, each in its own process. The time per round is the median of all
    rounds except the first; memory is the peak of all processes of a simulator together. The share of peak is
    that of a large matrix product.

    With --csv FILE, every run is also written to FILE.jsonl as soon as it has ended, and --resume goes on
    with what is missing there: runs, simulators or workloads. It refuses other settings, code and machines.
    """
    from fedtlu_fast.profiling.simulator_rows import SimulatorRow, rows
    from fedtlu_fast.profiling.simulators import simulators
    from fedtlu_fast.runs.as_json import dump_json

    if resume and csv_file is None:
        raise InputError(
            "--resume", True, "--csv FILE beside it", "Name the file of the measurement to continue."
        )
    names = _listed("--workloads", workloads)
    for name in names:
        if name not in NAMES:
            raise not_one_of("--workloads", name, NAMES)
    size = {key: value for key, value in (("clients", clients), ("cohort", cohort)) if value}
    _check_size(names, clients, cohort)
    check_place("--csv", csv_file, header_of(SimulatorRow))
    chosen = _chosen(simulators(rivals), systems)
    journal = _journal(csv_file, resume, rounds, size)
    if csv_file is not None:  # minutes before the first row: that the file can be written shows now
        write_csv(csv_file, SimulatorRow, rows(journal.results))
    try:
        for name in names:
            for _ in _told(chosen, name, rounds, runs, journal, size):
                if csv_file is not None:
                    write_csv(csv_file, SimulatorRow, rows(journal.results))
    except KeyboardInterrupt as interrupt:
        kept = "nothing is kept without --csv" if csv_file is None else "--resume continues"
        raise InterruptedRunError(f"{len(journal.results)} runs ended; {kept}", interrupt) from None
    made = rows(journal.results)
    if not made:
        raise FedtluError("no simulator finished its run")
    if csv_file is not None:
        write_csv(csv_file, SimulatorRow, made)
    if as_json:
        typer.echo(dump_json([asdict(row) for row in made], indent=1))
    else:
        show(_table(made), "use --csv or --json")


def _listed(option: str, given: str) -> list[str]:
    """Returns the names that an option lists.

    Raises:
        InputError: there are none.
    """
    names = [name.strip() for name in given.split(",") if name.strip()]
    if not names:
        raise InputError(option, given, "one name or more, separated by commas")
    return names


def _check_size(names: Sequence[str], clients: int | None, cohort: int | None) -> None:
    """Raises an error if a workload's federation has fewer clients than its rounds."""
    from fedtlu_fast.profiling.federations.workloads.choose import KINDS

    for name in names:
        usual = KINDS[name].settings
        held, drawn = clients or usual.clients, cohort or usual.cohort
        if drawn > held:
            option, given, expected = (
                ("--clients", clients, f"{drawn} or more")
                if cohort is None
                else ("--cohort", cohort, f"{held} or less")
            )
            fix = f"{name} draws {drawn} of {held} clients."
            raise InputError(option, given, expected, f"{fix} Give --clients and --cohort together.")


def _journal(csv_file: Path | None, resume: bool, rounds: int, size: Mapping[str, int]) -> Journal:
    from fedtlu_fast.profiling.journal import Journal, facts_here

    if csv_file is None:
        return Journal(None, {})
    usual = {"clients": "usual", "cohort": "usual"}
    facts = facts_here({"rounds": rounds, **usual, **size})
    return Journal(csv_file.with_name(f"{csv_file.name}.jsonl"), facts, resume=resume)


def _told(
    chosen: Sequence[Simulator],
    workload: str,
    rounds: int,
    runs: int,
    journal: Journal,
    size: Mapping[str, int],
) -> Iterator[None]:
    """Measures one workload; prints a line for each run that has ended, and yields after it."""
    from fedtlu_fast.profiling.simulator_rows import seconds_per_round
    from fedtlu_fast.profiling.simulators import measure

    for simulator, run, result in measure(chosen, workload, rounds, runs, journal, size):
        if isinstance(result, str):
            told = f"skipped, {result}"
        elif "round_seconds" in result:
            told = (
                f"{seconds_per_round([result]):.3g} s a round, the first {result['first_round_seconds']:.2f} "
                f"s, {result['peak_bytes'] / 1e6:,.0f} MB, loss {result['loss_after']:.4f}"
            )
        else:
            peak, work = result["peak_flops"] / 1e9, result["round_flops"] / 1e9
            told = f"{peak:.0f} GFLOP/s at best, {work:.3g} GFLOP a round"
        note(f"{workload}, run {run} of {runs}, {simulator.name}: {told}")
        yield


def _chosen(known: list[Simulator], systems: str | None) -> list[Simulator]:
    if systems is None:
        return known
    chosen = []
    for part in _listed("--systems", systems):
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
    heads = ("s a round", "x plain", "x rivals", "first round, s", "of rivals'", "peak MB", "over plain")
    for head in (*heads, "share of peak", "import, s", "loss after"):
        table.add_column(head, justify="right")
    previous = None
    for row in rows:
        if row.workload != previous:
            table.add_section()
        table.add_row(
            f"{row.workload}, {row.clients:,} / {row.cohort:,}" if row.workload != previous else "",
            f"{row.system} ({row.version})",
            f"{row.seconds_per_round:.3g}",
            _or_nothing(row.times_faster_than_plain, ".2f"),
            _or_nothing(row.times_faster_than_rivals, ".2f"),
            f"{row.first_round_seconds:.2f}",
            _or_nothing(row.first_round_of_rivals, ".2f"),
            f"{row.peak_mb:,.0f}",
            _or_nothing(row.mb_over_plain, "+,.0f"),
            _or_nothing(row.share_of_peak, ".2f"),
            f"{row.import_seconds:.2f}",
            f"{row.loss_after:.4f}",
        )
        previous = row.workload
    return table


def _or_nothing(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)
