"""Implements ``fedtlu data``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import notes
from fedtlu_fast.cli.files import PNG, check_place, write_plot
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import InputError
from fedtlu_fast.places import at_home

if TYPE_CHECKING:
    from fedtlu_fast.config import PartitionConfig
    from fedtlu_fast.data.holdings import Holdings

NUMBERS = ("min", "q1", "median", "q3", "max", "mean")


def data_command(
    preset: options.Preset = None,
    config: options.Config = None,
    overrides: options.Set = None,
    task: options.Task = None,
    model: options.Model = None,
    data: options.Data = None,
    partition: options.Partition = None,
    clients: options.Clients = None,
    seed: options.Seed = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Write a picture (PNG) of the clients' data to this file.",
            metavar="FILE",
            parser=at_home,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Show how the data are dealt: samples per client, their values, and distances from the whole data.

    The options are those of `fedtlu run` that decide the clients' data. Values are labels, documents, topics
    and so on. The effective number of values of a client is exp(entropy): 3 means as mixed as three values in
    equal shares. The distance is the total variation distance between the values of a client and those of
    all clients: 0 means equal, 1 means nothing in common. If there are more than 10,000 clients, 10,000 of
    them are examined.
    """
    from fedtlu_fast.build.data import load_federation
    from fedtlu_fast.data.holdings import look
    from fedtlu_fast.runs.as_json import dump_json
    from fedtlu_fast.tasks.builder import builder_of

    check_place("--plot", plot, PNG)
    given = {
        "model__pretrained": model,
        "task": task,
        "data__source": data,
        "partition": partition,
        "clients": clients,
        "seed": seed,
    }
    try:
        settings = options.settings_from(preset, config, overrides, **given)
    except InputError as error:
        if error.field != "cohort" or clients is None:
            raise
        # The clients' data do not depend on the cohort, whose default may exceed the given number of clients.
        settings = options.settings_from(preset, config, [*(overrides or []), f"cohort={clients}"], **given)
    with notes.status("Reading and dealing data") if sys.stderr.isatty() else nullcontext():
        labelled = "label_noise" in builder_of(settings.task).noises
        by = settings.partition.partitioner.by
        holdings = look(load_federation(settings), settings.seed, by, labelled=labelled)
    found = _numbers(holdings)
    if plot is not None:
        _write_plot(plot, holdings)
    if as_json:
        typer.echo(dump_json(found, indent=1))
    else:
        show(_table(found, str(settings.data.source), _dealt_by(settings.partition)), "use --json")


def _dealt_by(partition: PartitionConfig) -> str:
    """Returns the partition with the parameters that have a value, such as ``dirichlet (alpha=0.1)``."""
    own = partition.choosers()["name"].values_of(partition.name)
    told = ", ".join(f"{name}={value}" for name, value in own.items() if value is not None)
    return partition.name_of("name") + (f" ({told})" if told else "")


def _numbers(holdings: Holdings) -> dict[str, Any]:
    import numpy as np

    from fedtlu_fast.data.holdings import five_numbers

    return {
        "clients": holdings.clients,
        "looked_at": len(holdings.looked_at),
        "samples": five_numbers(holdings.train + holdings.own_test),
        "train": five_numbers(holdings.train),
        "own_test": five_numbers(holdings.own_test),
        "without_own_test": int((holdings.own_test == 0).sum()),
        "left_over": holdings.left_over,
        "partition_by": holdings.by,
        "attributes": {
            name: {
                "values": len(spread.names),
                "distinct": five_numbers(spread.distinct()),
                "entropy": five_numbers(spread.entropy()),
                "effective": five_numbers(np.exp(spread.entropy())),
                "distance": five_numbers(spread.distance()),
            }
            for name, spread in holdings.spreads.items()
        },
    }


def _table(found: dict[str, Any], source: str, partition: str) -> Table:
    among = "" if found["looked_at"] == found["clients"] else f"{found['looked_at']:,} of "
    dealt = "" if found["left_over"] is None else f", dealt by {partition}"
    caption = []
    if found["without_own_test"]:
        caption.append(f"{found['without_own_test']:,} clients have no test samples of their own")
    if found["left_over"]:
        caption.append(f"{found['left_over']:,} samples are held by no client")
    table = Table(
        title=f"{among}{found['clients']:,} clients of {source}{dealt}",
        caption="; ".join(caption) or None,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("of a client")
    for head in NUMBERS:
        table.add_column(head, justify="right")

    def row(name: str, numbers: dict[str, float], form: str) -> None:
        table.add_row(name, *(f"{numbers[head]:{'.1f' if head == 'mean' else form}}" for head in NUMBERS))

    row("samples", found["samples"], ",.0f")
    row("  to train on", found["train"], ",.0f")
    row("  own test", found["own_test"], ",.0f")
    for name, numbers in found["attributes"].items():
        table.add_section()
        row(f"values of {name}, of {numbers['values']:,}", numbers["distinct"], ",.0f")
        row("  effective number", numbers["effective"], ".2f")
        table.add_row("  distance", *(f"{numbers['distance'][head]:.3f}" for head in NUMBERS))
    return table


def _write_plot(path: Path, holdings: Holdings) -> None:
    from fedtlu_fast.report.figures.holdings import holdings_figure

    write_plot(path, lambda: holdings_figure(holdings))
