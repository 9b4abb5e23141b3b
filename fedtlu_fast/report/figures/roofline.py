"""The picture of `fedtlu profile`: how near each method comes to the speed of the memory."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtlu_fast.profiling.measure import Row
from fedtlu_fast.report.figures.style import FAINT, INK

OURS = ("#D55E00", "#E69F00", "#CC79A7")
THEIRS = ("#0072B2", "#56B4E9", "#009E73", "#999999", "#000000", "#7B3294")


def roofline_figure(rows: Sequence[Row]) -> Figure:
    """Draws GB/s of `layer_stats` against the bytes that it moves, and every operation against its floor.

    Without `layer_stats` the left panel shows the first operation of the rows.
    """
    ops = list(dict.fromkeys(row.op for row in rows))
    figure = Figure(figsize=(11.5, 5), dpi=130, layout="constrained")
    # The legends have a row of their own: outside the axes they never lie on a line.
    (left, right), (below, beside) = figure.subplots(2, 2, width_ratios=[1.25, 1], height_ratios=[5, 1])
    if ops:
        _speeds(left, [row for row in rows if row.op == ("layer_stats" if "layer_stats" in ops else ops[0])])
        _floors(right, rows, ops)
        below.legend(
            *left.get_legend_handles_labels(), loc="upper center", frameon=False, fontsize=7, ncols=2
        )
        beside.legend(*right.get_legend_handles_labels(), loc="upper center", frameon=False, fontsize=7)
    for axes in (below, beside):
        axes.set_axis_off()
    return figure


def _speeds(axes: Axes, rows: Sequence[Row]) -> None:
    """Draws GB/s of every method; labels count the groups of like layers that it mis-ranks."""
    ours, theirs = iter(OURS), iter(THEIRS)
    for method in dict.fromkeys(row.method for row in rows):
        own = sorted((row for row in rows if row.method == method), key=_bytes)
        mine = own[0].ours
        wrong, groups = sum(row.misranked or 0 for row in own), sum(row.groups for row in own)
        judged = any(row.misranked is not None for row in own)
        shade = next(ours if mine else theirs, INK)
        mark, label = "o" if mine else "s", f"{method} (mis-ranks {wrong} of {groups})" if judged else method
        full, half = ([row for row in own if (row.dtype == "float32") == wide] for wide in (True, False))
        axes.plot(
            [_bytes(row) for row in full],
            [row.gb_per_s for row in full],
            f"{mark}-" if mine else f"{mark}--",
            color=shade,
            linewidth=2 if mine else 1,
            markersize=5,
            label=label,
        )
        axes.plot(
            [_bytes(row) for row in half],
            [row.gb_per_s for row in half],
            mark,
            color=shade,
            markerfacecolor="white",
            markersize=5,
        )
    floors = sorted({(round(_bytes(row)), _bytes(row) / row.floor_ms / 1e6) for row in rows})
    axes.plot(
        *zip(*floors, strict=True),
        "_",
        markersize=16,
        markeredgewidth=2,
        color=INK,
        label="floor: the memory",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("bytes that must move (filled: float32; hollow: 16 bits)")
    axes.set_ylabel("GB/s")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{rows[0].op}: speed and accuracy", fontsize=9, loc="left")


def _floors(axes: Axes, rows: Sequence[Row], ops: Sequence[str]) -> None:
    """Draws our best method and the best rival of every operation, on the shape that moves the most bytes."""
    names = []
    for place, op in enumerate(ops):
        own = [row for row in rows if row.op == op]
        compared = [row for row in own if any(_same(row, rival) and not rival.ours for rival in own)]
        largest = max(compared or own, key=_bytes)  # some rivals are left out of large shapes
        best = {
            ours: max(
                (row.share_of_floor for row in own if _same(row, largest) and row.ours == ours), default=None
            )
            for ours in (True, False)
        }
        names.append(f"{op}\n{largest.shape}" + (f", K={largest.clients}" if largest.clients else ""))
        shares = [100 * share for share in best.values() if share is not None]
        axes.plot(shares, [place] * len(shares), color=FAINT, zorder=1)
        for ours, title in ((True, "ours"), (False, "the best rival (of aggregate: without statistics)")):
            share = best[ours]
            axes.plot(
                [] if share is None else [100 * share],
                [] if share is None else [place],
                "o" if ours else "s",
                color=OURS[0] if ours else THEIRS[0],
                label=title if place == 0 else None,
            )
    axes.axvline(100, color=INK, linewidth=1, linestyle=":")
    axes.set_xlim(left=0)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("% of the floor's speed")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("largest shape of each operation with a rival", fontsize=9, loc="left")


def _same(row: Row, other: Row) -> bool:
    return (row.shape, row.clients) == (other.shape, other.clients)


def _bytes(row: Row) -> float:
    return row.ms * row.gb_per_s * 1e6
