"""The picture of an experiment: the gain of every selector over random updates, by condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from fedtlu_fast.report.figures.style import FAINT, INK, colours

SPLITS = {"global": "global test", "local": "clients' own tests"}


def gains_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draws the gains in perplexity with their 95% intervals; a panel for each split.

    Args:
        rows: the rows of `experiment_rows`, some of them with a gain.
    """
    told = [row for row in rows if row["metric"] == "perplexity" and row["gain_over_random_pct"] is not None]
    splits = [split for split in SPLITS if any(row["split"] == split for row in told)]
    conditions = list(dict.fromkeys((row["aggregator"], row["threat"]) for row in told))
    selectors = list(dict.fromkeys(row["selector"] for row in told))
    shades = colours(selectors)
    figure = Figure(figsize=(5.2 * len(splits), 3.4), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        axes.axhline(0, color=INK, linewidth=0.8)
        for place, selector in enumerate(selectors):
            own = [row for row in told if row["selector"] == selector and row["split"] == split]
            shift = 0.18 * (place - (len(selectors) - 1) / 2)
            at = [conditions.index((row["aggregator"], row["threat"])) + shift for row in own]
            gains = [row["gain_over_random_pct"] for row in own]
            lows = [
                gain if row["ci_low"] is None else row["ci_low"] for gain, row in zip(gains, own, strict=True)
            ]
            reach = [gain - low for gain, low in zip(gains, lows, strict=True)]
            axes.errorbar(
                at, gains, reach, fmt="o", color=shades[selector], label=selector, capsize=3, markersize=5
            )
        axes.set_xticks(range(len(conditions)), ["\n".join(pair) for pair in conditions], fontsize=8)
        axes.set_title(SPLITS[split], fontsize=9, loc="left")
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(axis="y", color=FAINT)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("lower perplexity than random, %", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside right upper")
    return figure
