"""The section that shows which blocks were updated when, and how the scores ranked them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.report.aggregate.client_choices import ClientChoices, mean_shares
from fedtlu_fast.report.aggregate.curves import Choices
from fedtlu_fast.report.aggregate.stability import GroupHistory, Matrix, standing, taus
from fedtlu_fast.report.arms import arm_names
from fedtlu_fast.report.charts.chart import Chart
from fedtlu_fast.report.charts.lines import Axes, Series, line_chart
from fedtlu_fast.report.charts.maps import map_chart
from fedtlu_fast.report.charts.scale import Scale
from fedtlu_fast.report.figures.style import COLOURS, INK, PALETTE, Style
from fedtlu_fast.report.pages.content import Sheet
from fedtlu_fast.report.sections.curves import looks_of
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.shown import short_names

MOST_NAMED = 4
MOST_LINES = 6
"""The largest number of groups of like blocks with a line of their own."""
SHARE_NOTE = "At the right: the share of the rounds in which the block was updated."
Rows = Sequence[Mapping[str, Any]]


def updated_maps(results: Sequence[ArmResult], blocks: Sequence[str], warmup: int) -> list[Chart]:
    """Returns a map for each arm: the share of its runs that updated a block in each targeted round.

    Args:
        results: the arms, with any seeds.
        blocks: names of the blocks that selectors choose among, from input to output.
        warmup: the number of rounds that updated every block.
    """
    looks = looks_of(arm_names(results))
    found = []
    for name in arm_names(results):
        runs = [result.selection for result in results if result.selector == name]
        rounds, shares = updated_shares(runs, blocks, warmup)
        if rounds and (shares.min() < 1 or len(looks) == 1):  # a map without a gap shows nothing
            chart = share_map(f"{name}: updated blocks", rounds, blocks, shares, looks[name], len(runs))
            found += [] if chart is None else [chart]
    return found


def updated_shares(runs: Sequence[Rows], blocks: Sequence[str], warmup: int) -> tuple[list[int], Matrix]:
    """Returns the targeted rounds that all runs have, and [T, B]: the share of runs that updated a block."""
    logs = [{row["round"]: set(row["selected"]) for row in run if row["round"] > warmup} for run in runs]
    rounds = sorted(set.intersection(*map(set, logs))) if logs else []
    chosen = [[[block in log[at] for block in blocks] for at in rounds] for log in logs]
    shape = len(logs), len(rounds), len(blocks)
    return rounds, np.array(chosen, np.float64).reshape(shape).mean(axis=0)


def share_map(
    title: str, rounds: Sequence[int], blocks: Sequence[str], shares: Matrix, style: Style, runs: int
) -> Chart | None:
    """Returns the map of shares of runs that updated each block in each round."""
    names, means = short_names(blocks), shares.mean(axis=0)

    def text(at: int, place: int) -> str:
        if runs == 1:
            return "updated" if shares[at, place] else "not updated"
        return f"updated in {round(shares[at, place] * runs)} of {runs} runs"

    return map_chart(
        title,
        names,
        list(rounds),
        shares,
        text,
        summary=_most_often(names, means),
        style=style,
        numbers=(
            ["block", "share of the rounds that updated it"],
            [[name, f"{100 * share:.0f}%"] for name, share in zip(names, means, strict=True)],
        ),
        right=[f"{100 * share:.0f}%" for share in means],
    )


def client_maps(choices: Choices) -> list[Chart]:
    """Returns a map for each arm whose clients choose: mean shares of the cohort that sent each block.

    Args:
        choices: the choices of every arm's runs.
    """
    looks = looks_of(list(choices))
    made = [_client_map(name, runs, looks[name]) for name, runs in choices.items()]
    return [chart for chart in made if chart is not None]


def _client_map(name: str, runs: Sequence[ClientChoices], style: Style) -> Chart | None:
    blocks = list(dict.fromkeys(block for run in runs for block in run.blocks))
    rounds = range(min(run.rounds[0] for run in runs), 1 + max(run.rounds[-1] for run in runs))
    shares = mean_shares(runs, blocks, rounds)
    names, means = short_names(blocks), np.nan_to_num(shares).mean(axis=0)
    sent = "sent" if any(run.sent_less for run in runs) else "trained"

    def text(at: int, place: int) -> str:
        share = shares[at, place]
        return "no cohort" if np.isnan(share) else f"{100 * share:.0f}% of the cohort"

    return map_chart(
        f"{name}: blocks that clients {sent}",
        names,
        list(rounds),
        shares,
        text,
        summary=_most_often(names, means, "of the cohort"),
        style=style,
        numbers=(
            ["block", f"mean share of the cohort that {sent} it"],
            [[block, f"{100 * share:.0f}%"] for block, share in zip(names, means, strict=True)],
        ),
        right=[f"{100 * share:.0f}%" for share in means],
    )


def scores_map(selection: Rows, blocks: Sequence[str], warmup: int) -> Chart | None:
    """Returns the map of one run: the darker, the higher the block's score; updated blocks have a dot.

    Args:
        selection: the rows of selection.jsonl.
        blocks: names of the blocks that the selector chooses among, from input to output.
        warmup: the number of rounds that updated every block.
    """
    if not blocks or not selection:
        return None
    rounds = [int(row["round"]) for row in selection]
    scores = np.array([[row["block_scores"].get(block) for block in blocks] for row in selection], np.float64)
    chosen = np.array([[block in held for block in blocks] for held in map(_selected, selection)], np.bool_)
    late = np.array(rounds) > warmup
    marked = chosen & late[:, None]
    names = short_names(blocks)

    def text(at: int, place: int) -> str:
        told = f"{_score(scores[at, place])}, rank {_rank(scores[at], place)} of {len(blocks)}"
        return f"{told}, updated" if marked[at, place] else told

    shares = chosen[late].mean(axis=0) if late.any() else np.ones(len(blocks))
    words = _most_often(names, shares) if late.any() else "Every round was warm-up, which updates all blocks."
    until = f"Rounds 1 to {warmup} are the warm-up, which updates every block. " if warmup > 1 else ""
    until = "Round 1 is the warm-up, which updates every block. " if warmup == 1 else until
    return map_chart(
        "Score of each block, and which were updated",
        names,
        rounds,
        0.15 + 0.85 * standing(scores),
        text,
        summary=words,
        style=Style(INK, "-"),
        marked=marked,
        mark=warmup + 0.5 if warmup else None,
        numbers=(
            ["block", "share of the targeted rounds that updated it", "mean score", "last score"],
            [
                [
                    name,
                    f"{100 * share:.0f}%" if late.any() else "-",
                    _score(_mean(scores[:, place])),
                    _score(scores[-1, place]),
                ]
                for place, (name, share) in enumerate(zip(names, shares, strict=True))
            ],
        ),
        right=[f"{100 * share:.0f}%" for share in shares] if late.any() else [],
        note=f"Darker is a higher rank among the blocks of the round; a dot marks an updated block. {until}"
        + (SHARE_NOTE if late.any() else ""),
    )


def ranking_chart(groups: Sequence[GroupHistory]) -> Chart | None:
    """Returns the chart of how much of the ranking survives a round: Kendall's tau with the round before.

    Args:
        groups: the groups of like blocks of one run.
    """
    rounds = groups[0].rounds[1:] if groups else ()
    if not rounds:
        return None
    found = [taus(group) for group in groups]
    if len(groups) > MOST_LINES:
        title = f"mean and range of {len(groups)} groups"
        series = [Series(title, Style(COLOURS["random"], "-"), np.array(found))]
    else:
        series = [
            Series(group.group, Style(PALETTE[place % len(PALETTE)], "-"), own[None])
            for place, (group, own) in enumerate(zip(groups, found, strict=True))
        ]
    axes = Axes(say="{:+.2f}".format, vertical=Scale(-1.08, 1.08), zero=True)
    note = "1: the same order of blocks as in the round before; 0: unrelated; -1: reversed."
    return line_chart(
        "How much of the ranking survives a round (Kendall's tau)", rounds, series, axes, note=note
    )


def shares_sheet(results: Sequence[ArmResult], blocks: Sequence[str], warmup: int) -> Sheet | None:
    """Returns the table of the share of targeted rounds in which each arm updated each block."""
    names = [name for name in arm_names(results) if name != "full"]
    columns = {}
    for name in names:
        runs = [result.selection for result in results if result.selector == name]
        rounds, shares = updated_shares(runs, blocks, warmup)
        if rounds:
            columns[name] = shares.mean(axis=0)
    if not columns or not blocks:
        return None
    cells = [
        [block, *(f"{100 * shares[place]:.0f}%" for shares in columns.values())]
        for place, block in enumerate(short_names(blocks))
    ]
    title = "Share of the targeted rounds in which each block was updated"
    return Sheet(title, ["block", *columns], cells, folded=len(blocks) > 24)


def _selected(row: Mapping[str, Any]) -> set[str]:
    return set(row["selected"])


def _most_often(names: Sequence[str], shares: NDArray[np.float64], of: str = "of the rounds") -> str:
    order = [place for place in np.argsort(-shares, kind="stable") if shares[place] > 0][:MOST_NAMED]
    told = ", ".join(f"{names[place]} ({100 * shares[place]:.0f}% {of})" for place in order)
    return f"Most often: {told}." if told else "No block was updated."


def _rank(scores: NDArray[np.float64], place: int) -> int:
    return 1 + int((scores > scores[place]).sum())


def _mean(scores: NDArray[np.float64]) -> float:
    return float(np.nanmean(scores)) if not np.isnan(scores).all() else float("nan")


def _score(value: float) -> str:
    return "no score" if np.isnan(value) else f"{value:.3g}"
