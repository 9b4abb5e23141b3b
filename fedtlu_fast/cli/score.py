"""Implements ``fedtlu score``."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import typer
from rich.table import Table

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import note, results
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import listed, not_one_of
from fedtlu_fast.places import at_home
from fedtlu_fast.shown import visible

Granularity = Literal["tensor", "module", "block"]
Pooling = Literal["mean", "pooled"]
BY_SHAPE = "(by shape alone)"
"""Marks ranks among blocks or layers that have only their shape in common."""


def score_command(
    before: Annotated[
        Path,
        typer.Argument(
            parser=at_home,
            metavar="BEFORE",
            help="Checkpoint before the change: a .safetensors file or a model directory.",
        ),
    ],
    after: Annotated[
        Path,
        typer.Argument(
            parser=at_home,
            metavar="AFTER",
            help="Checkpoint of the same model after the change.",
        ),
    ],
    granularity: Annotated[str, typer.Option(help="Kind of blocks: tensor, module or block.")] = "block",
    ddof: Annotated[
        int, typer.Option(help="Standard deviation in Eq. 1: 0 of a population, 1 of a sample.")
    ] = 1,
    pooling: Annotated[
        str,
        typer.Option(help="Score of a block: mean (of its layers' scores) or pooled (as one layer)."),
    ] = "mean",
    backend: options.Backend = None,
    top: Annotated[int, typer.Option(min=0, help="Number of layers to list; 0: all.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Rank the layers and blocks of the change between two checkpoints by Eq. 1 of FedTLU.

    A block is compared only with like blocks, such as the other layers of a Transformer, and a layer only
    with the same part of like blocks. Unique blocks and layers (embeddings, head) have no rank. In a model
    without repeated blocks, those with the same shapes are compared, which the tables mark.
    """
    from fedtlu_fast.changes import score
    from fedtlu_fast.runs.as_json import dump_json

    _check("--granularity", granularity, get_args(Granularity))
    _check("--pooling", pooling, get_args(Pooling))
    scored = score(
        before,
        after,
        granularity=cast("Granularity", granularity),
        ddof=ddof,
        pooling=cast("Pooling", pooling),
        backend=backend or "auto",
    )
    found = scored.as_json()
    if as_json:
        typer.echo(dump_json(found, indent=1))
        return
    prefix = _shared_prefix([row["name"] for row in found["layers"]])
    show(_blocks(found["blocks"], prefix), "use --json")
    show(_layers(found["layers"], top, prefix), "use --json")
    if prefix:
        results.print(visible(f"All names begin with {prefix}"), markup=False, highlight=False)
    if any(row["alike_by"] == "shape" for row in (*found["blocks"], *found["layers"])):
        note(f"{BY_SHAPE}: these are not repeated parts of the model, so their ranks mean less")
    for line in _left_out(found):
        note(line)


def _check(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise not_one_of(option, given, known)


def _left_out(found: dict[str, Any]) -> list[str]:
    """Returns sentences about tensors that were not scored, and about names that differ."""
    lines = list(found["not_read"])
    renamed = found["renamed"]
    if renamed:
        first = renamed[0]
        more = f", and {len(renamed) - 1} more" if len(renamed) > 1 else ""
        lines.append(
            f"Names differ by prefixes only: {first['before']} in BEFORE is {first['after']} in AFTER{more}"
        )
    kinds = {
        "buffers": ("buffer", "buffers", ""),
        "tied": ("tensor", "tensors", "a tied copy that only one checkpoint holds"),
        "skipped": ("tensor", "tensors", "not floating point or quantised"),
    }
    for key, (one, many, why) in kinds.items():
        names = found[key]
        if names:
            kind = f"{one if len(names) == 1 else many}{f', {why},' if why else ''}"
            lines.append(f"{len(names)} {kind} not scored: {listed(names, 5)}")
    return lines


def _blocks(rows: list[dict[str, Any]], prefix: str) -> Table:
    table = Table(title="Blocks, best first within their group", title_justify="left")
    for head in ("group", "rank", "block", "block score", "L2 of change", "parameters"):
        table.add_column(head, justify="left" if head in ("group", "block") else "right", overflow="fold")
    previous = ""
    for row in rows:
        group = (row["group"] or "(unique)").removeprefix(prefix)
        group += f" {BY_SHAPE}" if row["alike_by"] == "shape" else ""
        if group != previous:
            table.add_section()
        rank = str(row["rank"] or "-")
        name, score = row["name"].removeprefix(prefix), _small(row["score"])
        shown = group if group != previous else ""
        table.add_row(shown, rank, name, score, f"{row['l2']:.4g}", f"{row['parameters']:,}")
        previous = group
    return table


def _layers(rows: list[dict[str, Any]], top: int, prefix: str) -> Table:
    shown = rows[:top] if top else rows
    title = f"Layers by excess = (mean/std)^2, {len(shown)} of {len(rows)}"
    table = Table(title=title, title_justify="left")
    for head in ("layer", "rank", "score", "excess", "L2", "n"):
        table.add_column(head, justify="left" if head == "layer" else "right", overflow="fold")
    for row in shown:
        rank = f"{row['rank']}/{row['like']}" if row["rank"] else "-"
        rank += f" {BY_SHAPE}" if row["alike_by"] == "shape" else ""
        excess = "degenerate" if row["degenerate"] else _small(row["excess"])
        if row["nonfinite"]:
            excess = f"{row['nonfinite']:.0f} non-finite"
        name, size = row["name"].removeprefix(prefix), f"{row['count']:,.0f}"
        table.add_row(name, rank, f"{row['score']:.9f}", excess, f"{row['l2']:.4g}", size)
    return table


def _shared_prefix(names: list[str]) -> str:
    """Returns the modules that all names begin with, such as ``transformer.``."""
    paths = [name.split(".")[:-1] for name in names]
    shared = list(takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False)))
    return "".join(f"{column[0]}." for column in shared)


def _small(value: float) -> str:
    return f"{value:.4e}" if value >= 0 else "none"
