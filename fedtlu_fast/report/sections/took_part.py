"""The section that shows which clients took part, and how their rounds ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedtlu_fast.report.charts.maps import map_chart
from fedtlu_fast.report.figures.style import COLOURS, Style
from fedtlu_fast.report.pages.content import Charts, Command, Part, Section, Sheet
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.runs.directory import CONFIG
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.shown import shell_word

MOST_CLIENTS = 60
"""The largest number of clients with a row of their own."""
OWN_DATA = "own"
"""The data source of federations that Python code made, whose data no command can show."""
TRAINED, SENT_NOTHING = 0.55, 1.0


def took_part_section(
    run: ArmResult, settings: RunSettings, place: Path, *, data_shown: bool = False
) -> Section:
    """Returns the section of one run; without logs it is empty, and a page leaves it out.

    Args:
        run: the run.
        settings: its settings.
        place: its directory, or that of its comparison.
        data_shown: whether the page shows what clients hold; else it has the command that shows it.
    """
    times: Counter[int] = Counter(client for row in run.selection for client in row.get("cohort", ()))
    if not times:
        return Section("took-part", "Who took part", [])
    clients = int(settings.tree["clients"])
    parts: list[Part] = []
    if clients <= MOST_CLIENTS:
        chart = _map(run, clients)
        parts += [] if chart is None else [Charts([chart])]
    parts.append(_counts(times, clients, len(run.selection)))
    if settings.source != OWN_DATA and not data_shown:
        command = f"fedtlu data --config {shell_word(place / CONFIG)} --plot data.png"
        parts.append(Command("Show which data each client holds", command))
    rounds = len(run.selection)
    lead = (
        f"{len(times):,} of {clients:,} clients trained in {rounds:,} rounds, "
        f"{sum(times.values()) / rounds:.3g} in a round on average."
    )
    return Section("took-part", "Who took part", parts, lead)


def _map(run: ArmResult, clients: int) -> Any:
    ends = [_ends(metrics, choice) for metrics, choice in zip(run.metrics, run.selection, strict=False)]
    rounds = [int(row["round"]) for row in run.selection][: len(ends)]
    words = [[end.get(client, "not drawn") for client in range(clients)] for end in ends]
    depth = {"not drawn": 0.0, "trained": TRAINED}
    shades = np.array([[depth.get(word, SENT_NOTHING) for word in row] for row in words], np.float64)
    counts = [sum(row[client] == "trained" for row in words) for client in range(clients)]
    bad = sum(word not in depth for row in words for word in row)
    fewest, most = min(counts), max(counts)
    summary = f"Each client's updates were used in {fewest} to {most} rounds; {bad} updates were not used."
    return map_chart(
        "Clients by rounds",
        [f"client {client}" for client in range(clients)],
        rounds,
        shades.reshape(len(rounds), clients),
        lambda at, client: words[at][client],
        summary=summary,
        style=Style(COLOURS["random"], "-"),
        numbers=(
            ["client", "rounds with an update that was used", "rounds with one that was not"],
            [
                [str(client), str(counts[client]), str(sum(row[client] not in depth for row in words))]
                for client in range(clients)
            ],
        ),
        right=[str(count) for count in counts],
        note="Light: the client's update was used. Dark: it was refused, or the client failed or was absent; "
        "point at it for the reason. At the right: rounds with an update that was used.",
    )


def _ends(metrics: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[int, str]:
    """Returns what became of each client that was drawn for a round."""
    found = dict.fromkeys(choice.get("drawn", ()), "absent")
    found |= dict.fromkeys(choice.get("cohort", ()), "trained")
    for name, word in (("dropped", "absent"), ("failed", "failed")):
        told = metrics.get(name) or {}
        found |= {int(client): f"{word}: {reason}" for client, reason in told.items()}
    return found | dict.fromkeys(
        metrics.get("refused") or (), "refused: what it sent was not finite or too large"
    )


def _counts(times: Mapping[int, int], clients: int, rounds: int) -> Sheet:
    by_times = Counter(times.values())
    by_times[0] = clients - len(times)
    cells = [[f"{count:,}", f"{by_times[count]:,}"] for count in sorted(by_times) if by_times[count]]
    return Sheet(
        "How many clients trained how often",
        [f"times (of {rounds:,} rounds)", "clients"],
        cells,
        folded=True,
    )
