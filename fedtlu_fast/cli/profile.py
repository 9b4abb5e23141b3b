"""``fedtlu profile``."""

from __future__ import annotations

import csv
import sys
from contextlib import nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fedtlu_fast.cli.console import notes, results
from fedtlu_fast.errors import InputError

if TYPE_CHECKING:
    from fedtlu_fast.profiling.measure import Row


def profile_command(
    shapes: Annotated[
        str, typer.Option(help="Model shapes, separated by commas, or all.")
    ] = "mlp,transformer-6,resnet-18,gpt2,gpt2-bf16",
    ops: Annotated[
        str, typer.Option(help="Operations, separated by commas.")
    ] = "layer_stats,accumulate_,masked_apply_",
    backends: Annotated[
        str | None, typer.Option(help="Backends, separated by commas (default: the fast ones that are live).")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="Timed calls of each method, in turn.")] = 7,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: torch's).")] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write the rows there.", metavar="FILE")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write a PNG there: GB/s against bytes.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print bandwidth and rows as JSON.")] = False,
) -> None:
    """Measure the operations on this machine, beside what people write by hand, speed with accuracy.

    Each method is checked against float64, then all are timed in turn in one process; times are medians.
    The floor is the time that the bytes which must move take at the bandwidth measured in the same run: of
    a sum for layer_stats, of a copy for the updates (which read more than they write, and so may pass it).
    Shapes: mlp, transformer-6, resnet-18, gpt2, gpt2-bf16, gpt2-xl (6 GB), llama-7b-bf16 (14 GB).
    """
    import torch

    from fedtlu_fast.ops import dispatch
    from fedtlu_fast.profiling.measure import OPS, bandwidth, profile
    from fedtlu_fast.profiling.shapes import SHAPES
    from fedtlu_fast.simulation.directory import dump_json

    dispatch.check_device("--device", device)
    for field, path in (("--csv", csv_file), ("--plot", plot)):
        # Before anything is measured: minutes of work should not end in a file that cannot be written.
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise InputError(field, str(path), "a file in a directory that exists")
    chosen_shapes = _chosen("--shapes", shapes, list(SHAPES))
    chosen_ops = _chosen("--ops", ops, list(OPS))
    kind = torch.device(device).type
    if backends:
        names = _chosen("--backends", backends, list(dispatch.BACKENDS))
        for name in names:
            dispatch.resolve(name, kind)
    else:
        # The reference is the oracle, and Triton's interpreter is for tests: by name only.
        live = dispatch.live_backends(kind)
        names = [name for name in live if name != "reference" and (name, kind) != ("triton", "cpu")]
        names = names or ["reference"]
    if threads is not None:
        torch.set_num_threads(threads)
    quiet = not sys.stderr.isatty()
    with nullcontext() if quiet else notes.status("Measuring"):
        speeds = bandwidth(device)
        rows = list(profile(chosen_shapes, chosen_ops, names, device, repeats, speeds))
    if csv_file is not None:
        _write_csv(csv_file, rows)
    if plot is not None:
        _write_plot(plot, rows, speeds)
    if as_json:
        found = {
            "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
            "threads": torch.get_num_threads(),
            "bytes_per_second": speeds,
            "rows": [asdict(row) for row in rows],
        }
        typer.echo(dump_json(found, indent=1))
        return
    where = f"{device}, {torch.get_num_threads()} threads" if device == "cpu" else device
    speed = ", ".join(f"{name} {value / 1e9:.1f} GB/s" for name, value in speeds.items())
    results.print(_table(rows, f"{where}: {speed}"))


def _chosen(field: str, given: str, known: list[str]) -> list[str]:
    names = known if given == "all" else [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise InputError(field, name, f"some of {', '.join(known)}")
    if not names:
        raise InputError(field, given, f"some of {', '.join(known)}")
    return names


def _table(rows: list[Row], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for head in (
        "op",
        "shape",
        "method",
        "ms",
        "GB/s",
        "of floor",
        "vs best rival",
        "worst error",
        "mis-ranked",
    ):
        table.add_column(head, justify="left" if head in ("op", "shape", "method") else "right")
    previous: tuple[str, str] | None = None
    for row in rows:
        if (row.shape, row.op) != previous:
            table.add_section()
        table.add_row(
            row.op if (row.shape, row.op) != previous else "",
            f"{row.shape} ({row.parameters:,})" if (row.shape, row.op) != previous else "",
            row.method,
            f"{row.ms:.3f}",
            f"{row.gb_per_s:.1f}",
            f"{100 * row.share_of_floor:.0f}%",
            f"{row.speedup:.1f}x" if row.speedup is not None else "",
            f"{row.worst_error:.1e}",
            f"{row.misranked}/{row.groups}" if row.misranked is not None else "",
        )
        previous = (row.shape, row.op)
    return table


def _write_csv(path: Path, rows: list[Row]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(rows[0])])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    except OSError as error:
        raise InputError("--csv", str(path), f"a file that can be written; {error.strerror}") from error


def _write_plot(path: Path, rows: list[Row], speeds: dict[str, float]) -> None:
    from fedtlu_fast.report.plots import png
    from fedtlu_fast.report.roofline import roofline_figure

    try:
        path.write_bytes(png(roofline_figure(rows, speeds)))
    except OSError as error:
        raise InputError("--plot", str(path), f"a file that can be written; {error.strerror}") from error
