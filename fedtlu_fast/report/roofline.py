"""A picture of `fedtlu profile`: how near each method comes to the memory's speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from fedtlu_fast.profiling.measure import Row
from fedtlu_fast.report.plots import FAINT, INK

OURS = ("#D55E00", "#E69F00", "#CC79A7")
THEIRS = ("#0072B2", "#56B4E9", "#009E73", "#999999", "#000000")


def roofline_figure(rows: Sequence[Row], speeds: Mapping[str, float]) -> Figure:
    """GB/s of layer_stats against the bytes of the change, and the machine's read bandwidth above it.

    Beside each method: the groups of like layers that it mis-ranks, over all shapes.
    """
    figure = Figure(figsize=(8.5, 4.4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    shown = [row for row in rows if row.op == "layer_stats"]
    methods = list(dict.fromkeys(row.method for row in shown))
    ours, theirs = iter(OURS), iter(THEIRS)
    for method in methods:
        own = sorted((row for row in shown if row.method == method), key=lambda row: row.parameters)
        wrong = sum(row.misranked or 0 for row in own)
        mine = method.startswith("fedtlu")
        shade = next(ours if mine else theirs, INK)
        full, half = ([row for row in own if (row.dtype == "float32") == wide] for wide in (True, False))
        axes.plot(
            [_bytes(row) for row in full],
            [row.gb_per_s for row in full],
            "o-" if mine else "s--",
            color=shade,
            linewidth=2 if mine else 1,
            markersize=5,
            label=f"{method} (mis-ranks {wrong} of {sum(row.groups for row in own)})",
        )
        axes.plot(
            [_bytes(row) for row in half],
            [row.gb_per_s for row in half],
            "o" if mine else "s",
            color=shade,
            markerfacecolor="white",
            markersize=5,
        )
    axes.axhline(speeds["read"] / 1e9, color=INK, linewidth=1, linestyle=":")
    at = (1, speeds["read"] / 1e9)
    axes.annotate("read bandwidth", at, xycoords=("axes fraction", "data"), ha="right", va="bottom")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("bytes of the change (filled: float32; hollow: 16 bits)")
    axes.set_ylabel("GB/s")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("layer_stats: speed and accuracy", fontsize=9, loc="left")
    figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    return figure


def _bytes(row: Row) -> float:
    return row.ms * row.gb_per_s * 1e6
