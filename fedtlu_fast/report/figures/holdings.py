"""The picture of the data that clients hold: clients side by side, and the values that each one holds."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from fedtlu_fast.data.holdings import Holdings, Spread
from fedtlu_fast.data.population import Indices
from fedtlu_fast.report.figures.style import FAINT, INK

MOST_COLUMNS = 200
"""Of more clients than this, so many are shown, evenly spaced in the order of the picture."""
MOST_ROWS = 24
"""The number of values with a row of their own; the others share a row."""
LONGEST_NAME = 28
TRAIN, OWN_TEST = "#0072B2", "#56B4E9"


def holdings_figure(holdings: Holdings) -> Figure:
    """Draws the samples of each client, its shares of the values, and at the right the shares of all.

    Clients are sorted by the value of which they hold most. Without a known attribute the picture is a
    histogram of the sizes.
    """
    if holdings.by is None:
        return _sizes_figure(holdings)
    spread = holdings.spreads[holdings.by]
    shown, order = _columns(spread), np.argsort(-spread.overall, kind="stable")
    rows = min(len(order), MOST_ROWS) + (len(order) > MOST_ROWS)
    figure = Figure(figsize=(11, 2.6 + 0.22 * max(rows, 6)), dpi=130, layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.1, 0.22 * max(rows, 6)), width_ratios=(7, 1))
    sizes = figure.add_subplot(grid[0, 0])
    _bars(sizes, holdings, shown)
    heat = figure.add_subplot(grid[1, 0], sharex=sizes)
    image = heat.imshow(
        _dense(spread, shown, order), cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest"
    )
    names = [_short(spread.names[value]) for value in order[:MOST_ROWS]]
    if len(order) > MOST_ROWS:
        names.append(f"{len(order) - MOST_ROWS} others")
    heat.set_yticks(range(rows), names, fontsize=7)
    heat.set_xlabel(f"{_told(holdings, len(shown))}, sorted by the value that each holds most", fontsize=8)
    heat.tick_params(bottom=False, labelbottom=False)
    overall = figure.add_subplot(grid[1, 1], sharey=heat)
    overall.barh(range(rows), _folded(spread.overall[order]), color=INK, height=0.7)
    overall.tick_params(labelleft=False, labelsize=7)
    overall.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    overall.xaxis.set_major_locator(MaxNLocator(3))
    overall.set_title("all together", fontsize=8)
    bar = figure.colorbar(image, ax=overall)
    bar.set_label(f"share of the client's samples, by {holdings.by}", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _sizes_figure(holdings: Holdings) -> Figure:
    figure = Figure(figsize=(8, 3.6), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    held = holdings.train + holdings.own_test
    axes.hist(held, bins=min(60, max(1, len(np.unique(held)))), color=TRAIN)
    axes.set_xlabel("samples that a client holds")
    axes.set_ylabel("clients")
    axes.set_title(_told(holdings, len(held)), fontsize=9, loc="left")
    return figure


def _columns(spread: Spread) -> Indices:
    """Returns the places of the clients shown: by the value of which each holds most, then by its share."""
    # For each client its largest share first; of equal ones that of the commoner value.
    by_share = np.lexsort((-spread.overall[spread.values], -spread.shares, spread.clients))
    first = by_share[np.unique(spread.clients[by_share], return_index=True)[1]]
    rank = np.argsort(np.argsort(-spread.overall, kind="stable"))
    ordered = np.lexsort((-spread.shares[first], rank[spread.values[first]]))
    if len(ordered) <= MOST_COLUMNS:
        return ordered
    return ordered[np.linspace(0, len(ordered) - 1, MOST_COLUMNS).round().astype(np.int64)]


def _dense(spread: Spread, shown: Indices, order: Indices) -> NDArray[np.float64]:
    """Returns [rows, columns]: the shares of the values, the most frequent first, of the clients shown."""
    column = np.full(int(spread.clients.max()) + 1, -1)
    column[shown] = np.arange(len(shown))
    # The rest in one row from the start: of ten thousands of values a table would not fit.
    row = np.minimum(np.argsort(order), MOST_ROWS)
    there = column[spread.clients] >= 0
    shares = np.zeros((min(len(order), MOST_ROWS + 1), len(shown)))
    np.add.at(shares, (row[spread.values[there]], column[spread.clients[there]]), spread.shares[there])
    return shares


def _folded(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adds up the rows beyond `MOST_ROWS` to one."""
    if len(shares) <= MOST_ROWS:
        return shares
    return np.concatenate([shares[:MOST_ROWS], shares[MOST_ROWS:].sum(axis=0, keepdims=True)])


def _bars(axes: Axes, holdings: Holdings, shown: Indices) -> None:
    places = np.arange(len(shown))
    train, own_test = holdings.train[shown], holdings.own_test[shown]
    axes.bar(places, train, width=1, color=TRAIN, label="for training")
    axes.bar(places, own_test, width=1, bottom=train, color=OWN_TEST, label="own test")
    axes.tick_params(bottom=False, labelbottom=False, labelsize=7)
    axes.set_ylabel("samples", fontsize=8)
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))


def _told(holdings: Holdings, shown: int) -> str:
    among = "" if shown == holdings.clients else f"{shown:,} of "
    return f"{among}{holdings.clients:,} clients"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
