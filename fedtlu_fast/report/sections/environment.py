"""The section of the environment: versions and machine, which decide the last bits."""

from __future__ import annotations

from collections.abc import Sequence

from fedtlu_fast.report.pages.content import Notes, Part, Section, Sheet
from fedtlu_fast.runs.results import ArmResult


def environment_section(results: Sequence[ArmResult]) -> Section:
    """Returns the section of what these runs recorded of their environment; empty if that is nothing."""
    told = [result.summary for result in results if result.summary.get("environment")]
    if not told:
        return Section("environment", "Environment", [])
    names = list(dict.fromkeys(name for summary in told for name in summary["environment"]))
    cells, apart = [], []
    for name in names:
        values = list(dict.fromkeys(str(summary["environment"].get(name, "not set")) for summary in told))
        cells.append([name, " | ".join(values)])
        apart += [name] if len(values) > 1 else []
    digests = list(dict.fromkeys(str(s["data_sha256"]) for s in told if s.get("data_sha256")))
    if digests:
        cells.append(["data, SHA-256", " | ".join(digests)])
    parts: list[Part] = []
    if apart:
        parts.append(
            Notes(
                [f"The runs do not share these facts, so their last bits may differ: {', '.join(apart)}."],
                True,
            )
        )
    parts.append(Sheet("Versions and machine", ["fact", "value"], cells))
    return Section("environment", "Environment", parts)
