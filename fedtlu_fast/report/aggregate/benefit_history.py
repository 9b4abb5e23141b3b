"""Reads what runs recorded of the benefit of blocks, and makes tables and sentences of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.report.aggregate.block_benefit import BASELINES, SMOOTHED, RunBenefit, run_benefit
from fedtlu_fast.report.aggregate.history import ALL_GROUPS, read_selection
from fedtlu_fast.report.aggregate.score_quality import (
    FEWEST_RUNS,
    BenefitReport,
    Estimate,
    ScoreQuality,
    Together,
    benefit_report,
)
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.tables import Cells
from fedtlu_fast.runs.arm_paths import arm_path
from fedtlu_fast.runs.directory import COMPARISON
from fedtlu_fast.runs.find import kind_of
from fedtlu_fast.runs.sealed import read_sealed_yaml
from fedtlu_fast.scoring.block_metrics import OF_CLIENTS, asked_by
from fedtlu_fast.selection.quota import quotas
from fedtlu_fast.yaml_text import parse_yaml

MOST_GROUPS = 3
"""The largest number of groups that a table of scores shows one by one."""
RECORD = "Record them with --set evaluation.benefit=true --set evaluation.held_out=256."
SHARE = "share of attainable gain (± 95%)"


def read_benefit(paths: Sequence[Path]) -> BenefitReport:
    """Reads the recorded benefits of one or more runs, which may still be in progress.

    Args:
        paths: directories of runs. That of a comparison stands for its runs that recorded benefits.

    Raises:
        InputError: there is no run, it recorded no benefits, a run is there twice, or runs differ in their
            groups or in `keep`.
    """
    found: dict[Path, RunBenefit] = {}
    for path, run in (one for given in paths for one in _recorded_in(given)):
        first = next(iter(found), path)
        if path.resolve() in {other.resolve() for other in found}:
            raise InputError("RUN_DIR", str(path), "every run once: a second time it is no other run")
        if found and _kinds(run) != _kinds(found[first]):
            expected = f"a run with the same groups and the same selection.keep as {first}"
            raise InputError("RUN_DIR", str(path), expected, "Show it by itself.")
        found[path] = run
    return benefit_report(list(found.values()))


def _recorded_in(path: Path) -> list[tuple[Path, RunBenefit]]:
    """What a run recorded, or each run of a comparison that recorded something."""
    if kind_of(path) != "comparison":
        settings, selection, layout = read_selection(path)
        run = recorded_benefit(selection, layout, settings)
        if run is not None:
            return [(path, run)]
        if settings.records_benefit:
            expected = "a run with a round in which a client took part and its change was not refused"
            raise InputError("RUN_DIR", str(path), expected, "It has recorded no benefits so far.")
        raise InputError("RUN_DIR", str(path), "a run with rounds that recorded benefits", RECORD)
    arranged = parse_yaml(read_sealed_yaml(path / COMPARISON, "selectors and seeds of this comparison"))
    pairs = [(str(selector), int(seed)) for selector in arranged["selectors"] for seed in arranged["seeds"]]
    arms = [arm_path(path, *pair) for pair in pairs]  # not the shared warm-up, which is in all of them
    found = []
    for arm in (arm for arm in arms if kind_of(arm) == "run" and RunSettings.read(arm).records_benefit):
        settings, selection, layout = read_selection(arm)
        if (run := recorded_benefit(selection, layout, settings)) is not None:
            found.append((arm, run))
    if not found:
        raise InputError("RUN_DIR", str(path), "a comparison with runs that recorded benefits", RECORD)
    return found


def recorded_benefit(
    selection: Sequence[Mapping[str, Any]], layout: ParameterLayout, settings: RunSettings
) -> RunBenefit | None:
    """Returns what a run recorded; None if it recorded nothing.

    A selector without quotas, such as ``full``, ignores selection.keep, which then says only for how many
    blocks scores are judged. If it does not fit the model, that is every block.

    Args:
        selection: the rows of its selection.jsonl.
        layout: the layout of its model.
        settings: its settings.

    Raises:
        InputError: selection.keep does not fit the model, and the selector goes by it.
    """
    if not layout.groups or not any(row.get("benefit") for row in selection):
        return None
    groups = {group.name: [layout.blocks[block].name for block in group.blocks] for group in layout.groups}
    try:
        keep = quotas(layout, settings.keep)
    except InputError:
        selector = settings.made_selector()
        if selector is None or selector.budgeted:
            raise
        keep = tuple(len(group.blocks) for group in layout.groups)
    return run_benefit(selection, groups, keep)


def score_cells(report: BenefitReport) -> Cells:
    """Returns heads and cells of the table of scores, the best of each group first.

    Of more than `MOST_GROUPS` groups, only all groups together are shown.
    """
    heads = ["group", "score", "needs", SHARE, "tau with the gain (± 95%)", "early third", "middle", "late"]
    order: list[str | None] = [*report.keep] if len(report.keep) <= MOST_GROUPS else []
    order += [None] if len(report.keep) > 1 else []
    cells = [
        [
            _group_text(report, row.group),
            row.score,
            needs(row.score),
            _estimate(row.share, 100, "z.0f", "%"),
            _estimate(row.tau, 1, "+z.2f"),
            *map(_percent, row.thirds),
        ]
        for row in sorted(report.scores, key=_best_first)
        if row.group in order
    ]
    places = [_group_text(report, group) for group in order]
    return heads, sorted(cells, key=lambda line: places.index(line[0]))


def block_cells(report: BenefitReport) -> Cells:
    """Returns heads and cells of the table of blocks."""
    heads = ["group", "block", "mean gain, % of the loss", "best of its group", "chosen"]
    return heads, [
        [
            row.group,
            row.block,
            "-" if row.gain is None else f"{100 * row.gain:+z.3f}%",
            _percent(row.best),
            _percent(row.chosen),
        ]
        for row in report.blocks
    ]


def benefit_sentences(report: BenefitReport) -> list[str]:
    """Says how to read the table of scores, and whether the gains of blocks add up."""
    rounds = f"{report.rounds:,} round{'' if report.rounds == 1 else 's'}"
    told = [
        "The gain of a block is the fall of the held-out loss if a round applied it alone. A share of 100% "
        "is what the blocks that gain most would have got, 0% a random choice, and less is worse than that.",
    ]
    if report.runs > 1:
        few = report.runs < FEWEST_RUNS
        how = "too few runs for an interval" if few else "intervals are over runs"
        told.append(f"{report.runs} runs, {rounds}; {how}.")
    else:
        told.append(
            f"{rounds.capitalize()}. Intervals take rounds as independent, which they are not: the true ones "
            "are longer."
        )
    if report.left_out:
        told.append(
            f"{report.left_out:,} more left out, as nobody took part or the held-out loss was no number."
        )
    told.append(
        "Rounds of the warm-up count too, except in how often a block was chosen: of targeted rounds only. "
        "Parts outside of the choice (stem, head) are applied in every loss, also in the one without any "
        "block, or with selection.unique=never in none: no gain contains theirs."
    )
    if report.together is not None:
        told.append(_together(report.together))
    return told


def _together(found: Together) -> str:
    """Says whether gains add up, with the one reading that applies."""
    every, singles = found.every, found.singles
    sums = (
        f"The gains of single blocks add up to {singles:.3g} nats a round; with every block applied the loss"
    )
    if every < 0:
        clash = "Together, blocks undo what they gain alone." if singles > 0 else "Blocks do harm."
        return f"{sums} rises by {-every:.3g} nats. {clash}"
    share = f", {100 * every / singles:.0f}% of that" if singles > 0 else ""
    reading = {
        -1: " That is less than the sum: blocks do the same work.",
        0: "",
        1: " That is more than the sum: blocks help each other.",
    }[int(np.sign(every - singles))]
    return f"{sums} falls by {every:.3g} nats{share}.{reading}"


def benefit_json(report: BenefitReport) -> dict[str, Any]:
    """Returns everything, ready for JSON."""
    found = asdict(report)
    for row in found["scores"]:
        row["needs"] = needs(row["score"])
    return found


def needs(score: str) -> str:
    """Says what the server must have to compute a score; ``?`` for scores that are not known here."""
    if score in BASELINES:
        return "nothing"
    metric = score.removesuffix(SMOOTHED).partition(",")[0]
    try:
        facts = asked_by((metric,))
    except InputError:
        return "?"
    told = ["clients"] * bool(facts & set(OF_CLIENTS)) + ["held-out samples"] * ("held_out" in facts)
    return ", ".join(told) or "aggregate"


def _kinds(run: RunBenefit) -> list[tuple[str, tuple[str, ...], int]]:
    return [(group.group, group.blocks, group.keep) for group in run.groups]


def _best_first(row: ScoreQuality) -> float:
    return float("inf") if row.share.value is None else -row.share.value


def _group_text(report: BenefitReport, group: str | None) -> str:
    if group is None:
        return ALL_GROUPS
    size = sum(row.group == group for row in report.blocks)
    return f"{group}, best {report.keep[group]} of {size}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:z.0f}%"


def _estimate(found: Estimate, scale: float, form: str, unit: str = "") -> str:
    if found.value is None:
        return "-"
    text = f"{scale * found.value:{form}}{unit}"
    digits = form.lstrip("+z")
    return text if found.reach is None else f"{text} ± {scale * found.reach:{digits}}{unit}"
