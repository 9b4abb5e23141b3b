"""Implements ``fedtlu profile``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import note, notes
from fedtlu_fast.cli.files import PNG, check_place, header_of, write_csv, write_plot
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import InputError, not_one_of
from fedtlu_fast.places import at_home

if TYPE_CHECKING:
    from fedtlu_fast.profiling.measure import Row


DEFAULT_SHAPES = ("mlp", "transformer-6", "resnet-18", "gpt2", "gpt2-bf16")
DEFAULT_AGGREGATED = ("mlp", "transformer-6", "gpt2")


def profile_command(
    shapes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Model shapes, separated by commas, or all (as far as they fit in memory)."
        ),
    ] = None,
    ops: Annotated[
        str, typer.Option(metavar="NAMES", help="Operations, separated by commas, or all.")
    ] = "all",
    clients: Annotated[
        str,
        typer.Option(metavar="NUMBERS", help="Numbers of clients that aggregate gets, separated by commas."),
    ] = "10",
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Backends, separated by commas (default: the live ones except reference)."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Device to measure: cpu, cuda or cuda:N.")
    ] = "cpu",
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Timed calls of each method.")] = 7,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of CPU threads (default: PyTorch's).")
    ] = None,
    csv_file: options.Csv = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Write a picture (PNG) of GB/s over bytes to this file.",
            metavar="FILE",
            parser=at_home,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print notes and rows as JSON.")] = False,
) -> None:
    """Measure the speed and accuracy of our operations on this machine, and of hand-written code.

    Each method is compared with float64; then all methods are timed in turn in one process, and the median
    times are shown. The floor of an operation is the time to move the necessary bytes at the memory's
    bandwidth, which is measured in the same turns. On the CPU, only the reads of an update in place count,
    because the writes overlap them. A small shape that stays in a cache may be faster than the floor.

    Shapes: mlp, transformer-6, resnet-18, gpt2, gpt2-bf16 (these five are the default), gpt2-xl (6 GB),
    llama-7b-bf16 (14 GB), 100k-layers, one-layer (as many bytes as 100k-layers).

    Operations: layer_stats (of a flat vector), layer_stats (list) (of separate tensors), accumulate_,
    accumulate_+stats, aggregate, aggregate+clients (with the statistics of every client),
    aggregate+norms (with the norms of every client), masked_apply_. aggregate always computes the statistics
    of the sum; of its rivals only "torch.mv + loop" computes norms and standard deviations. median, trimmed
    mean, distances (of every two clients) and krum (the choice of one) are those of robust rules. Without
    --shapes the operations on several clients are measured on mlp, transformer-6 and gpt2.
    """
    import torch

    from fedtlu_fast.ops.backends import BACKENDS, check_device, live_backends, resolve
    from fedtlu_fast.profiling.measure import Row, profile
    from fedtlu_fast.profiling.operations import OPS
    from fedtlu_fast.profiling.shapes import SHAPES, fitting
    from fedtlu_fast.runs.as_json import dump_json

    check_device("--device", device)
    check_place("--csv", csv_file, header_of(Row))
    check_place("--plot", plot, PNG)
    chosen_shapes = _chosen("--shapes", shapes or ",".join(DEFAULT_SHAPES), list(SHAPES))
    chosen_ops = _chosen("--ops", ops, list(OPS))
    numbers = _numbers("--clients", clients)
    kind = torch.device(device).type
    if backends:
        names = _chosen("--backends", backends, list(BACKENDS))
        for name in names:
            resolve(name, kind)
    else:
        # The slow backends run only if they are asked for by name: the reference is the oracle, and Triton's
        # interpreter is for tests.
        live = live_backends(kind)
        names = [name for name in live if name != "reference" and (name, kind) != ("triton", "cpu")]
        names = names or ["reference"]
    if threads is not None:
        torch.set_num_threads(threads)
    left_out: dict[str, None] = {}  # in order, each once
    if shapes == "all":
        chosen_shapes, large = fitting(chosen_shapes, device)
        left_out |= {f"{name}: left out, because it does not fit in memory": None for name in large}
    quiet = not sys.stderr.isatty()
    with nullcontext() if quiet else notes.status("Measuring"):
        rows = list(
            profile(
                chosen_shapes,
                chosen_ops,
                names,
                device,
                repeats,
                lambda note: left_out.update({note: None}),
                clients=numbers,
                aggregated=DEFAULT_AGGREGATED if shapes is None else chosen_shapes,
            )
        )
    if csv_file is not None:
        write_csv(csv_file, Row, rows)
    if plot is not None:
        _write_plot(plot, rows)
    if as_json:
        found = {
            "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
            "threads": torch.get_num_threads(),
            "notes": list(left_out),
            "rows": [asdict(row) for row in rows],
        }
        typer.echo(dump_json(found, indent=1))
        return
    where = f"{device}, {torch.get_num_threads()} threads" if device == "cpu" else device
    show(_table(rows, where), "use --csv or --json")
    for line in left_out:
        note(line)


def _numbers(field: str, given: str) -> list[int]:
    parts = [part.strip() for part in given.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(field, given, "numbers of clients from 1, separated by commas")
    return [int(part) for part in parts]


def _chosen(field: str, given: str, known: list[str]) -> list[str]:
    names = known if given == "all" else [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise not_one_of(field, name, known, "some of")
    if not names:
        raise InputError(field, given, f"some of {', '.join(known)}")
    return names


def _table(rows: list[Row], where: str) -> Table:
    columns = {
        "reads": [row.read_gb_per_s for row in rows],
        "writes": [row.write_gb_per_s for row in rows],
    }
    spans = [
        f"{name} {min(speeds):.1f} to {max(speeds):.1f} GB/s" for name, speeds in columns.items() if speeds
    ]
    table = Table(title=", ".join([where, *spans]), title_justify="left")
    left = ("op", "shape", "method")
    right = (
        "ms",
        "GB/s",
        "of floor",
        "vs best rival",
        "element error",
        "mean/std error",
        "mis-ranked",
    )
    for head in (*left, *right):
        # If the table is too wide, only shapes and heads are wrapped, between words.
        table.add_column(head, justify="left" if head in left else "right", no_wrap=head in ("op", "method"))
    previous: tuple[str, str, int | None] | None = None
    for row in rows:
        place = (row.shape, row.op, row.clients)
        first = place != previous
        if first:
            table.add_section()
        table.add_row(
            row.op if first else "",
            f"{row.shape} ({row.parameters:,})" + (f" K={row.clients}" if row.clients else "")
            if first
            else "",
            row.method,
            f"{row.ms:.3f}" if row.ms < 100 else f"{row.ms:.0f}",
            f"{row.gb_per_s:.1f}",
            f"{100 * row.share_of_floor:.0f}%",
            f"{row.speedup:.1f}x" if row.speedup is not None else "",
            f"{row.element_error:.1e}" if row.element_error is not None else "",
            f"{row.ratio_error:.1e}" if row.ratio_error is not None else "",
            f"{row.misranked}/{row.groups}" if row.misranked is not None else "",
        )
        previous = place
    return table


def _write_plot(path: Path, rows: list[Row]) -> None:
    from fedtlu_fast.report.figures.roofline import roofline_figure

    write_plot(path, lambda: roofline_figure(rows))
