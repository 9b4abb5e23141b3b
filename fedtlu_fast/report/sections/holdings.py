"""The section that shows which data each client holds."""

from __future__ import annotations

import numpy as np

from fedtlu_fast.data.holdings import Holdings, Spread, five_numbers
from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.charts.lines import Axes, Series, line_chart
from fedtlu_fast.report.charts.maps import map_chart
from fedtlu_fast.report.charts.scale import Scale, thinned
from fedtlu_fast.report.figures.style import COLOURS, Style
from fedtlu_fast.report.pages.content import Charts, Part, Section, Sheet

MOST_CLIENTS = 240
"""The largest number of clients that charts show; of more so many are shown, evenly spaced."""
MOST_VALUES = 24
"""The number of values with a row of their own; the others share a row."""
BLUE, LIGHT_BLUE = Style(COLOURS["random"], "-"), Style("#56B4E9", "-")


def holdings_section(holdings: Holdings) -> Section:
    """Returns the section of what the clients of a run hold.

    Args:
        holdings: what `data.holdings.look` has counted.
    """
    shown = thinned(len(holdings.looked_at), MOST_CLIENTS)
    made = [_sizes(holdings, shown), _values(holdings, shown)]
    charts = [chart for chart in made if chart is not None]
    parts: list[Part] = [Charts(charts)] if charts else []
    parts.append(_numbers(holdings))
    lead = f"{holdings.clients:,} clients"
    if len(holdings.looked_at) < holdings.clients:
        lead += f", of which {len(holdings.looked_at):,} were counted"
    if len(shown) < len(holdings.looked_at):
        lead += f"; the charts show {len(shown)}, evenly spaced"
    return Section("held", "Who held what", parts, f"{lead}.")


def _sizes(holdings: Holdings, shown: list[int]) -> Chart | None:
    clients = holdings.looked_at[shown].tolist()
    series = [
        Series(name, style, counts[shown][None].astype(np.float64), joined=False)
        for name, style, counts in (
            ("for training", BLUE, holdings.train),
            ("own test", LIGHT_BLUE, holdings.own_test),
        )
    ]
    largest = float(max(holdings.train.max(), holdings.own_test.max(), 1))
    axes = Axes(unit="client", across="client", say="{:,.0f}".format, vertical=Scale(0, 1.08 * largest))
    return line_chart("Samples of each client", clients, series, axes)


def _values(holdings: Holdings, shown: list[int]) -> Chart | None:
    if holdings.by is None:
        return None
    spread = holdings.spreads[holdings.by]
    order = np.argsort(-spread.overall, kind="stable")
    held = _counts(spread, shown, order)
    totals = held.sum(axis=1, keepdims=True)
    shares = held / np.maximum(totals, 1)
    names = [spread.names[value] for value in order[:MOST_VALUES]]
    if len(order) > MOST_VALUES:
        names.append(f"{len(order) - MOST_VALUES:,} others")
    overall = _folded(spread.overall[order])
    distance = spread.distance()
    told = (
        f"The mean distance of a client's shares from those of all is {distance.mean():.2f} "
        "(total variation: 0 is equal, 1 is nothing in common)."
    )
    return map_chart(
        f"Share of each client's samples, by {holdings.by}",
        names,
        holdings.looked_at[shown].tolist(),
        shares,
        lambda at, row: f"{100 * shares[at, row]:.0f}%, {held[at, row]:,.0f} samples",
        summary=told,
        style=BLUE,
        unit="client",
        numbers=(
            [holdings.by, "share of all samples"],
            [[name, f"{100 * share:.1f}%"] for name, share in zip(names, overall, strict=True)],
        ),
        right=[f"{100 * share:.0f}%" for share in overall],
        note=f"{told} At the right: the share of all samples.",
    )


def _counts(
    spread: Spread, shown: list[int], order: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Returns [clients, values]: the samples of the clients shown, the most frequent values first."""
    column = np.full(int(spread.clients.max()) + 1, -1)
    column[shown] = np.arange(len(shown))
    row = np.minimum(np.argsort(order), MOST_VALUES)
    there = column[spread.clients] >= 0
    found = np.zeros((len(shown), min(len(order), MOST_VALUES + 1)))
    np.add.at(found, (column[spread.clients[there]], row[spread.values[there]]), spread.counts[there])
    return found


def _folded(shares: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[float]:
    """Returns the shares of the most frequent values, and the sum of the others if there are some."""
    rest = [float(shares[MOST_VALUES:].sum())] if len(shares) > MOST_VALUES else []
    return [*shares[:MOST_VALUES].tolist(), *rest]


def _numbers(holdings: Holdings) -> Sheet:
    rows = {"for training": holdings.train, "own test": holdings.own_test}
    cells = [
        [name, *(f"{value:,.1f}" for value in five_numbers(counts).values())] for name, counts in rows.items()
    ]
    return Sheet(
        "Samples of a client", ["", "least", "quarter", "median", "three quarters", "most", "mean"], cells
    )
