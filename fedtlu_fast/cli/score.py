"""Implements ``fedtlu score``."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer
from rich.table import Table

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import note, results
from fedtlu_fast.cli.files import PNG, check_place, write_plot, write_rows
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import listed, not_one_of
from fedtlu_fast.places import at_home
from fedtlu_fast.shown import visible

if TYPE_CHECKING:
    from fedtlu_fast.changes import ScoredChange

Granularity = Literal["tensor", "module", "block"]
Pooling = Literal["mean", "pooled"]
By = Literal["layer", "block", "kind"]
BY_SHAPE = "(by shape alone)"
"""Marks ranks among blocks or layers that have only their shape in common."""
LAYERS = 20
"""The number of layers that are listed unless --top says otherwise."""
EXCESS = "excess"
"""The metric of Eq. 1, whose values have columns of their own."""


def score_command(
    before: Annotated[
        Path,
        typer.Argument(
            parser=at_home,
            metavar="BEFORE",
            help="Model before the change: a .safetensors, .bin or .gguf file, a directory, a LoRA adapter's "
            "directory, or a name on the hub (owner/model, owner/model@revision).",
        ),
    ],
    after: Annotated[
        Path,
        typer.Argument(
            parser=at_home,
            metavar="AFTER",
            help="The same model after the change, in any of these forms.",
        ),
    ],
    by: Annotated[
        str | None,
        typer.Option(
            help="Table to print: layer, block or kind (layers at the same place of like blocks). Default: "
            "blocks and layers."
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="Metric that ranks: excess (Eq. 1), l2_per_parameter, relative_change, or "
            "package.module:name of your own."
        ),
    ] = EXCESS,
    granularity: Annotated[str, typer.Option(help="Kind of blocks: tensor, module or block.")] = "block",
    ddof: Annotated[
        int, typer.Option(help="Standard deviation in Eq. 1: 0 of a population, 1 of a sample.")
    ] = 1,
    pooling: Annotated[
        str,
        typer.Option(help="Score of a block: mean (of its layers' scores) or pooled (as one layer)."),
    ] = "mean",
    base: Annotated[
        Path | None,
        typer.Option(
            parser=at_home,
            metavar="MODEL",
            help="Base model of adapters; each adapter is then scored as the whole model with it.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse models that do not have the same layers with the same shapes."),
    ] = False,
    backend: options.Backend = None,
    top: Annotated[
        int | None,
        typer.Option(
            min=0, help=f"Number of rows to list, of each group of blocks; 0: all (default: {LAYERS} layers)."
        ),
    ] = None,
    csv_file: options.Csv = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Write a picture (PNG) to this file: bars of blocks or kinds, a map of layers.",
            metavar="FILE",
            parser=at_home,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Rank the layers and blocks of the change between two models by Eq. 1 of FedTLU.

    A block is compared only with like blocks, such as the other layers of a Transformer, and a layer only
    with the same part of like blocks. Unique blocks and layers (embeddings, head) have no rank. In a model
    without repeated blocks, those with the same shapes are compared, which the tables mark.

    Files are read a piece at a time, so a model may be larger than the memory. Without --strict, the layers
    that both models have are scored, and the others are listed. --csv and --plot write the blocks unless --by
    says otherwise.
    """
    from fedtlu_fast.changes import score
    from fedtlu_fast.runs.as_json import dump_json

    _check("--granularity", granularity, get_args(Granularity))
    _check("--pooling", pooling, get_args(Pooling))
    if by is not None:
        _check("--by", by, get_args(By))
    check_place("--csv", csv_file)
    check_place("--plot", plot, PNG)
    scored = score(
        before,
        after,
        granularity=cast("Granularity", granularity),
        metric=metric,
        ddof=ddof,
        pooling=cast("Pooling", pooling),
        base=base,
        strict=strict,
        backend=backend or "auto",
    )
    written = cast("By", by or "block")
    if csv_file is not None:
        rows = scored.rows(written)
        write_rows(csv_file, list(rows[0]), rows)
    if plot is not None:
        write_plot(plot, lambda: scored.figure(written))
    found = scored.as_json()
    if as_json:
        typer.echo(dump_json(found, indent=1))
        return
    _print_tables(scored, found, cast("By | None", by), top)
    for line in _left_out(found):
        note(line)


def _print_tables(scored: ScoredChange, found: dict[str, Any], by: By | None, top: int | None) -> None:
    prefix = _shared_prefix([row["name"] for row in found["layers"]])
    own = None if scored.metric == EXCESS else scored.metric
    if by in (None, "block"):
        show(_blocks(found["blocks"], top if by else 0, prefix, own), "use --json")
    if by in (None, "layer"):
        show(_layers(found["layers"], LAYERS if top is None else top, prefix, own), "use --json")
    if by == "kind":
        show(_kinds(found["kinds"], top or 0, prefix, own), "use --json")
    if prefix:
        results.print(visible(f"All names begin with {prefix}"), markup=False, highlight=False)
    shown = found["layers"] if by == "layer" else found["blocks"] if by == "block" else ()
    if by is None:
        shown = (*found["blocks"], *found["layers"])
    if any(row["alike_by"] == "shape" for row in shown):
        note(f"{BY_SHAPE}: these are not repeated parts of the model, so their ranks mean less")


def _check(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise not_one_of(option, given, known)


def _left_out(found: dict[str, Any]) -> list[str]:
    """Returns sentences about how files were read, tensors that were not scored, and names that differ."""
    lines = [*found["notes"], *found["not_read"]]
    if all(row["l2"] == 0 for row in found["layers"]):
        lines.append(
            "Nothing has changed: BEFORE and AFTER are equal in all layers, so the ranks mean nothing"
        )
    renamed = found["renamed"]
    if renamed:
        first = renamed[0]
        more = f", and {len(renamed) - 1} more" if len(renamed) > 1 else ""
        lines.append(
            f"Names differ by prefixes only: {first['before']} in BEFORE is {first['after']} in AFTER{more}"
        )
    if found["left_out"]:
        some = len(found["left_out"])
        kind = "layer" if some == 1 else "layers"
        lines.append(f"{some} {kind} not compared: {'; '.join(found['left_out'][:5])}{' ...' * (some > 5)}")
    kinds = {
        "buffers": ("buffer", "buffers", ""),
        "tied": ("tensor", "tensors", "a tied copy of another"),
        "skipped": ("tensor", "tensors", "not floating point or quantised"),
    }
    for key, (one, many, why) in kinds.items():
        names = found[key]
        if names:
            kind = f"{one if len(names) == 1 else many}{f', {why},' if why else ''}"
            lines.append(f"{len(names)} {kind} not scored: {listed(names, 5)}")
    return lines


def _blocks(rows: list[dict[str, Any]], top: int | None, prefix: str, metric: str | None) -> Table:
    table = Table(title="Blocks, best first within their group", title_justify="left")
    value = (metric, EXCESS) if metric else ("block score",)
    for head in ("group", "rank", "block", *value, "L2 of change", "parameters"):
        table.add_column(head, justify="left" if head in ("group", "block") else "right", overflow="fold")
    previous = ""
    for row in rows:
        if top and (row["rank"] or 0) > top:
            continue
        group = (row["group"] or "(unique)").removeprefix(prefix)
        group += f" {BY_SHAPE}" if row["alike_by"] == "shape" else ""
        if group != previous:
            table.add_section()
        name = row["name"].removeprefix(prefix)
        values = [_small(row[key]) for key in (*(["value"] if metric else []), "score")]
        shown = group if group != previous else ""
        l2, size = f"{row['l2']:.4g}", f"{row['parameters']:,}"
        table.add_row(shown, str(row["rank"] or "-"), name, *values, l2, size)
        previous = group
    return table


def _layers(rows: list[dict[str, Any]], top: int, prefix: str, metric: str | None) -> Table:
    shown = rows[:top] if top else rows
    title = f"Layers by {metric or 'excess = (mean/std)^2'}, {len(shown)} of {len(rows)}"
    table = Table(title=title, title_justify="left")
    value = (metric,) if metric else ()
    for head in ("layer", "rank", *value, "score", "excess", "L2", "n"):
        table.add_column(head, justify="left" if head == "layer" else "right", overflow="fold")
    for row in shown:
        rank = f"{row['rank']}/{row['like']}" if row["rank"] else "-"
        rank += f" {BY_SHAPE}" if row["alike_by"] == "shape" else ""
        excess = "degenerate" if row["degenerate"] else _small(row["excess"])
        if row["nonfinite"]:
            excess = f"{row['nonfinite']:.0f} non-finite"
        name, size = row["name"].removeprefix(prefix), f"{row['count']:,.0f}"
        values = [_small(row["value"])] if metric else []
        table.add_row(name, rank, *values, f"{row['score']:.9f}", excess, f"{row['l2']:.4g}", size)
    return table


def _kinds(rows: list[dict[str, Any]], top: int, prefix: str, metric: str | None) -> Table:
    shown = rows[:top] if top else rows
    title = f"Kinds of layers by {metric or 'score'}, {len(shown)} of {len(rows)}"
    table = Table(title=title, title_justify="left")
    names = ("kind", "role", "best layer")
    heads = ("kind", "role", "layers", metric or "score", "L2 of change", "share of L2^2", "best layer")
    for head in heads:
        table.add_column(head, justify="left" if head in names else "right", overflow="fold")
    for row in shown:
        table.add_row(
            row["name"].removeprefix(prefix),
            row["role"],
            str(row["layers"]),
            _small(row["value"]),
            f"{row['l2']:.4g}",
            f"{100 * row['share']:.1f}%",
            row["best"].removeprefix(prefix) if row["layers"] > 1 else "",
        )
    return table


def _shared_prefix(names: list[str]) -> str:
    """Returns the modules that all names begin with, such as ``transformer.``."""
    paths = [name.split(".")[:-1] for name in names]
    shared = list(takewhile(lambda column: len(set(column)) == 1, zip(*paths, strict=False)))
    return "".join(f"{column[0]}." for column in shared)


def _small(value: float) -> str:
    """Returns a value in words; -1 stands for none, while metrics of the user's may be negative."""
    return "none" if value == -1 else f"{value:.4e}"
