"""The page that sets past runs side by side: what differs in their settings, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from fedtlu_fast.data.holdings import Holdings
from fedtlu_fast.report.aggregate.comparison import comparison_cells, comparison_rows
from fedtlu_fast.report.aggregate.costs import RunCosts, read_costs
from fedtlu_fast.report.aggregate.curves import quality_curves
from fedtlu_fast.report.aggregate.entries import Entry, differing, setting_text
from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.columns import Column
from fedtlu_fast.report.figures.style import BASELINE_COLOUR, DASHES, PALETTE, Style
from fedtlu_fast.report.headline import headline_of
from fedtlu_fast.report.own_columns import OwnColumns
from fedtlu_fast.report.pages.content import Command, Notes, Page, Part, Section, Sheet
from fedtlu_fast.report.pages.parts import attempt, charts, sections
from fedtlu_fast.report.sections.curves import quality_charts
from fedtlu_fast.report.sections.environment import environment_section
from fedtlu_fast.report.sections.faults import faults_section
from fedtlu_fast.report.sections.holdings import holdings_section
from fedtlu_fast.report.sections.own import own_charts
from fedtlu_fast.report.sections.privacy import privacy_notes
from fedtlu_fast.report.sections.spent import spent_section
from fedtlu_fast.report.sections.took_part import OWN_DATA
from fedtlu_fast.report.sections.updated import shares_sheet
from fedtlu_fast.report.verdict import said_of
from fedtlu_fast.runs.directory import CONFIG, COSTS
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.shown import shell_word
from fedtlu_fast.tasks.metrics import Figure

MOST_NAMED = 5
SHADES = (BASELINE_COLOUR, *PALETTE)


def side_by_side_page(
    entries: Sequence[Entry], columns: Sequence[Column] = (), holdings: Holdings | None = None
) -> Page:
    """Returns the page of past runs; a section that cannot be made is left out, and the log says why.

    Args:
        entries: one or more; see `read_entries`.
        columns: columns that are asked for besides.
        holdings: what the clients hold, the same in all runs; None leaves that out.
    """
    results = [run for entry in entries for run in entry.runs]
    own = OwnColumns.of(results, columns)
    apart = differing(entries)
    costs = attempt("the costs", lambda: _costs(entries)) or {}
    count = len(results)
    return Page(
        kind="Side by side",
        title=f"{count} run{'s' * (count > 1)} side by side",
        sentence=attempt("the sentence on top", lambda: _sentence(entries, apart)) or "",
        lead=f"{len(entries)} entries; runs that differ only in their seed are one, with mean and spread.",
        sections=sections(
            {
                "Result": lambda: _result(entries, results, own),
                "Settings": lambda: _settings(entries, apart),
                "Blocks": lambda: _blocks(results),
                **({} if holdings is None else {"Who held what": lambda: holdings_section(holdings)}),
                "Costs": lambda: spent_section(
                    results, headline_of(results[0].summary), costs, looks_in(entries)
                ),
                "Faults": lambda: faults_section(results),
                "Environment": lambda: environment_section(results),
                "How to repeat it": lambda: _repeat(entries),
            }
        ),
    )


def looks_in(entries: Sequence[Entry]) -> dict[str, Style]:
    """Returns the look of each entry's line: a colour, and other dashes where the colours begin again."""
    return {
        entry.name: Style(SHADES[place % len(SHADES)], DASHES[place // len(SHADES) % len(DASHES)])
        for place, entry in enumerate(entries)
    }


def _sentence(entries: Sequence[Entry], apart: Sequence[str]) -> str:
    headlines = _headlines(entries)
    said = []
    for headline, own in headlines.items():
        means = {entry.name: _mean(entry, headline) for entry in own}
        known = {name: value for name, value in means.items() if value is not None}
        if known:
            pick = min if headline.better == "lower" else max
            best = pick(known, key=lambda name: known[name])
            said.append(f"The best {headline.title} is {said_of(headline, known[best])}, by {best}.")
        else:
            said.append(f"No run reached a finite {headline.title}.")
    if len(entries) > 1:
        named = ", ".join(apart[:MOST_NAMED]) + (
            f" and {len(apart) - MOST_NAMED} more" * (len(apart) > MOST_NAMED)
        )
        said.append(
            f"They differ in {len(apart)} settings: {named}." if apart else "Their settings are the same."
        )
    return " ".join(said)


def _headlines(entries: Sequence[Entry]) -> dict[Figure, list[Entry]]:
    found: dict[Figure, list[Entry]] = {}
    for entry in entries:
        found.setdefault(headline_of(entry.runs[0].summary), []).append(entry)
    return found


def _mean(entry: Entry, headline: Figure) -> float | None:
    values = [run.summary.get(headline.column) for run in entry.runs]
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _result(entries: Sequence[Entry], results: Sequence[ArmResult], own: OwnColumns) -> Section:
    warnings = _warnings(entries)
    heads, cells = comparison_cells(comparison_rows(results, own), own)
    seeds = {entry.name: len(entry.runs) for entry in entries}
    rounds = {entry.name: entry.runs[0].summary["rounds"] for entry in entries}
    table = Sheet(
        "Side by side",
        ["run", "seeds", "rounds", *heads[1:]],
        [[line[0], str(seeds[line[0]]), f"{rounds[line[0]]:,}", *line[1:]] for line in cells],
    )
    drawn = charts(
        {
            "curves": lambda: _curves(entries),
            "columns": lambda: own_charts(results, own),
        }
    )
    parts: list[Part] = [Notes(warnings, warning=True)] if warnings else []
    return Section("result", "Result", [*privacy_notes(results), *parts, table, *drawn])


def _curves(entries: Sequence[Entry]) -> list[Chart]:
    looks, found = looks_in(entries), []
    for headline, own in _headlines(entries).items():
        runs = [run for entry in own for run in entry.runs]
        warmup = min(int(run.summary["warmup_rounds"]) for run in runs)
        curves = quality_curves(runs, headline)
        found += quality_charts(curves, headline, title="Global test", warmup=warmup, looks=looks, whole=True)
    return found


def _warnings(entries: Sequence[Entry]) -> list[str]:
    found = []
    if len(_headlines(entries)) > 1:
        found.append(
            "The runs have different headlines, so that not all of them can be compared by one number."
        )
    data: dict[int, set[str]] = {}
    for entry in entries:
        for run in entry.runs:
            data.setdefault(run.seed, set()).add(str(run.summary.get("data_sha256")))
    if any(len(digests) > 1 for digests in data.values()):
        found.append(
            "The clients do not hold the same data in all runs of a seed, so that their tests differ."
        )
    return found


def _settings(entries: Sequence[Entry], apart: Sequence[str]) -> Section:
    names = list(dict.fromkeys(name for entry in entries for name in entry.settings))
    shared = [[name, setting_text(entries[0], name)] for name in names if name not in apart]
    parts: list[Part] = []
    if apart:
        cells = [[name, *(setting_text(entry, name) for entry in entries)] for name in apart]
        parts.append(Sheet("Settings that differ", ["setting", *(entry.name for entry in entries)], cells))
    elif len(entries) > 1:
        parts.append(Notes(["All settings are the same."]))
    parts.append(Sheet("Settings that all share", ["setting", "value"], shared, folded=True))
    return Section("settings", "What differs in their settings", parts)


def _blocks(results: Sequence[ArmResult]) -> Section:
    groups = [result.summary.get("groups") for result in results]
    blocks = [block for group in (groups[0] or {}).values() for block in group]
    if not blocks or any(other != groups[0] for other in groups):
        return Section("blocks", "Which blocks were updated", [])
    warmup = max(int(result.summary["warmup_rounds"]) for result in results)
    sheet = shares_sheet(results, blocks, warmup)
    return Section("blocks", "Which blocks were updated", [] if sheet is None else [sheet])


def _costs(entries: Sequence[Entry]) -> Mapping[str, Sequence[RunCosts]]:
    measured = {
        entry.name: entry.places
        for entry in entries
        if all(os.path.lexists(place / COSTS) for place in entry.places)
    }
    return read_costs(measured)


def _repeat(entries: Sequence[Entry]) -> Section:
    named = [entry for entry in entries if entry.settings.get("data.source") != OWN_DATA]
    places: list[Path] = [place for entry in named for place in entry.places]
    lines = [f"fedtlu run --config {shell_word(place / CONFIG)}" for place in places]
    parts: list[Part] = [Command("Each run again", "\n".join(lines))] if lines else []
    made = ", ".join(entry.name for entry in entries if entry not in named)
    if made:
        parts.append(Notes([f"Made by Python code (Federation), and repeated by that code: {made}."]))
    return Section("repeat", "How to repeat it", parts)
