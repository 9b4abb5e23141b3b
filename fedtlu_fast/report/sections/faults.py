"""The section of faults: refused, failed and absent clients, blocks and models that were not finite, ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fedtlu_fast.report.pages.content import Notes, Part, Section, Sheet
from fedtlu_fast.runs.results import ArmResult

MOST_REASONS = 20
"""The largest number of reasons that the table shows."""
NONE = "No client failed or was refused, every block stayed finite, and no line of the logs was damaged."


def faults_section(results: Sequence[ArmResult]) -> Section:
    """Returns the section of the faults that the logs of these runs tell of."""
    warnings = [line for result in results for line in _warnings(result, len(results) > 1)]
    parts: list[Part] = [Notes(warnings, warning=True)] if warnings else []
    counted = [(result, _counts(result)) for result in results]
    if any(any(counts.values()) for _, counts in counted):
        heads = [head for head in counted[0][1] if any(counts[head] for _, counts in counted)]
        cells = [
            [f"{result.selector}, seed {result.seed}", *(f"{counts[head]:,}" for head in heads)]
            for result, counts in counted
        ]
        parts.append(Sheet("What went wrong, and how often", ["run", *heads], cells))
        reasons = Counter(reason for result in results for reason in _reasons(result))
        if reasons:
            shown = [[reason, f"{count:,}"] for reason, count in reasons.most_common(MOST_REASONS)]
            left = len(reasons) - len(shown)
            note = f"{left} more reasons are in metrics.jsonl." if left else ""
            parts.append(Sheet("Why", ["reason", "times"], shown, note))
    elif not warnings:
        parts.append(Notes([NONE]))
    return Section("faults", "Faults and warnings", parts)


def _warnings(result: ArmResult, named: bool) -> list[str]:
    summary = result.summary
    who = f"{result.selector}, seed {result.seed}: " if named else ""
    found = []
    if (last := summary.get("diverged_round")) is not None:
        found.append(f"{who}the model diverged: the test loss after round {last} is not finite.")
    if reason := summary.get("stopped"):
        found.append(f"{who}stopped after round {summary['rounds']}: {reason}.")
    lost = [row["round"] for row in result.timings if row.keys() <= {"round"}]
    if lost:
        found.append(f"{who}the timings of {len(lost)} rounds were damaged or are missing.")
    return found


def _counts(result: ArmResult) -> dict[str, int]:
    summary, rows = result.summary, result.metrics
    return {
        "updates refused": int(summary.get("refused_updates") or 0),
        "clients that failed": int(summary.get("failed_clients") or 0),
        "drawn clients that were absent": int(summary.get("dropped_clients") or 0),
        "blocks that were not finite": sum(len(row.get("nonfinite_blocks") or ()) for row in rows),
        "clients left out of tests": sum(len(row.get("failed_tests") or ()) for row in rows)
        + len(summary.get("failed_tests") or ()),
        "noisy or malicious updates": int(summary.get("malicious_updates") or 0),
    }


def _reasons(result: ArmResult) -> list[str]:
    rows = [*result.metrics, {"failed_tests": result.summary.get("failed_tests")}]
    kinds = {"failed": "failed", "dropped": "absent", "failed_tests": "left out of a test"}
    return [
        f"{word}: {reason}"
        for row in rows
        for key, word in kinds.items()
        for reason in (row.get(key) or {}).values()
    ]
