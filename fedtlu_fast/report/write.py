"""Writes what people look at into a directory: plots, tables, and a page that holds all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedtlu_fast.block_metrics import scored_layout
from fedtlu_fast.config import RunConfig
from fedtlu_fast.report.arms import chooses
from fedtlu_fast.report.client_report import write_client_report
from fedtlu_fast.report.history import kind_cells, score_history, stability_cells
from fedtlu_fast.report.history_plots import history_figure
from fedtlu_fast.report.page import write_page, write_pictures
from fedtlu_fast.report.plots import comparison_figure, curves_figure, png, selection_figure
from fedtlu_fast.report.tables import SOME, comparison_cells, comparison_rows, to_csv, to_markdown
from fedtlu_fast.simulation.compare import ArmResult, save_comparison
from fedtlu_fast.simulation.directory import RunDirectory
from fedtlu_fast.simulation.run import RunResult


def write_run_report(result: RunResult, config: RunConfig, out: Path) -> None:
    """Plots and report.html of one run.

    Raises:
        StorageError: they cannot be written.
    """
    layout = result.layout
    blocks = [layout.blocks[block].name for group in layout.groups for block in group.blocks]
    ungrouped = [layout.blocks[block].name for block in layout.ungrouped]
    warmup = int(result.summary["warmup_rounds"])
    always = ungrouped if config.selection.ungrouped == "always" else []
    pictures = {
        "curves": png(curves_figure(result.metrics, config.selection.selector, warmup)),
        "selection": png(selection_figure(result.selection, blocks, warmup, always)),
    }
    shown_as = {"Perplexity": "curves", "Scores and choices": "selection"}
    scored = scored_layout(layout, config.selection.scored_layers)
    history = score_history(result.selection, scored, config.selection.metric)
    if history.stability:
        pictures["ranks"] = png(history_figure(history.groups))
        shown_as["Ranks, and how much of them survives a round"] = "ranks"
    write_pictures(out, pictures)
    shown = {
        key: _text(value)
        for key, value in result.summary.items()
        if key not in ("groups", "test_f1") and not (key in SOME and value is None)
    }
    tables: list[dict[str, Any]] = [
        {"title": "Summary", "heads": ["", "value"], "cells": [list(pair) for pair in shown.items()]}
    ]
    if f1 := result.summary.get("test_f1"):
        cells = [[tag, f"{score:.4f}"] for tag, score in f1.items()]
        tables.append({"title": "Global test, label by label", "heads": ["label", "F1"], "cells": cells})
    for title, (heads, rows) in {
        "Ranks from round to round (see fedtlu history --help)": stability_cells(history),
        "Which layers decide a block's score": kind_cells(history),
    }.items():
        if rows:
            tables.append({"title": title, "heads": heads, "cells": rows})
    write_page(
        out,
        title=f"Federated run: {config.selection.selector}, seed {config.seed}",
        lead=f"{result.summary['rounds']} rounds, {config.clients} clients, {config.cohort} in a round, "
        f"{layout.size:,} parameters.",
        tables=tables,
        pictures={title: pictures[name] for title, name in shown_as.items()},
        config=config,
    )


def write_comparison_report(
    results: Sequence[ArmResult], config: RunConfig, out: Path
) -> list[dict[str, Any]]:
    """comparison.json, table.md, table.csv, the picture and report.html; returns the table's rows.

    Where clients choose, see `write_client_report`.

    Raises:
        StorageError: they cannot be written.
    """
    if any(map(chooses, results)):
        return write_client_report(results, config, out)
    rows = comparison_rows(results)
    heads, cells = comparison_cells(rows)
    directory = RunDirectory(out)
    save_comparison(out, rows, results)
    directory.write("table.md", to_markdown(heads, cells))
    directory.write("table.csv", to_csv(rows))
    blocks = [block for group in results[0].summary["groups"].values() for block in group]
    picture = png(comparison_figure(results, blocks))
    write_pictures(out, {"comparison": picture})
    write_page(
        out,
        title="Which layers to update: " + ", ".join(row["selector"] for row in rows),
        lead=f"{config.rounds} rounds ({config.warmup_rounds} of them warm-up), {config.clients} clients, "
        f"{config.cohort} in a round; mean ± standard deviation over {len(rows[0]['seeds'])} seeds.",
        tables=[{"title": "Comparison", "heads": heads, "cells": cells}],
        pictures={"Perplexity, and which blocks were updated": picture},
        config=config,
    )
    return rows


def _text(value: Any) -> str:
    return f"{value:,.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
