"""Makes the tables and the picture of docs/study.md of what benchmarks/study.py wrote.

    python benchmarks/study_table.py TABLES                   prints the tables as Markdown
    python benchmarks/study_table.py TABLES --picture FILE    draws gains, of settings with several seeds

The *best choice* of a setting is the one-block rule with the largest mean gain among those that nobody can
know beforehand: the oracles, and always the same block. Its gain is what a score can hope for.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean

from fedtlu_fast.report.aggregate.experiment import interval_reach

SCORES = {
    "Eq. 1": "fedtlu",
    "signal": "fedtlu:signal+selection.pooling=pooled",
    "signal to noise": "fedtlu:signal_to_noise+selection.pooling=pooled",
    "pairs": "fedtlu:pairs+selection.pooling=pooled",
    "votes": "fedtlu:votes+selection.pooling=pooled",
    "L2 per parameter": "fedtlu:l2_per_parameter+selection.pooling=pooled",
    "agreement": "fedtlu:agreement+selection.pooling=pooled",
    "aligned": "fedtlu:aligned+selection.pooling=pooled",
}
"""Arms by the names that the tables give them."""
FIXED = {"first": "first", "last": "last", "all": "full"}
ABREAST = 6
"""Panels of the picture beside each other."""
ORACLES = ("oracle", "smoothed:benefit", "always:", "first", "last")
"""Beginnings of the arms among which the best choice is."""


@dataclass(frozen=True)
class Arm:
    """The gains of one arm over random choice, in per cent of perplexity, seed by seed."""

    name: str
    gains: tuple[float, ...]

    def text(self, form: str = "+.1f", unit: float = 1.0) -> str:
        """Writes the mean gain in shares of a unit, with its 95% interval if there are several seeds."""
        mean, reach = f"{fmean(self.gains) / unit:{form}}", interval_reach(self.gains)
        return mean if reach is None else f"{mean} ± {reach / unit:{form.lstrip('+')}}"


def read_arms(path: Path, test: str) -> dict[str, Arm]:
    """Reads a table of benchmarks/study.py: its arms that have gains on a test (``global`` or ``local``)."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row[f"{test}_gains"]]
    return {row["arm"]: Arm(row["arm"], tuple(map(float, row[f"{test}_gains"].split()))) for row in rows}


def read_tables(paths: Sequence[Path], test: str) -> dict[str, dict[str, Arm]]:
    """Reads the gains of every setting on a test, but for those where clients choose, with other arms."""
    tables = {path.stem: read_arms(path, test) for path in paths}
    return {name: arms for name, arms in tables.items() if arms and not any("@" in arm for arm in arms)}


def with_best(tables: dict[str, dict[str, Arm]]) -> dict[str, dict[str, Arm]]:
    """Returns the settings that have arms among which there is a best choice."""
    return {name: arms for name, arms in tables.items() if any(arm.startswith(ORACLES) for arm in arms)}


def best_of(arms: dict[str, Arm]) -> Arm:
    """Returns the best choice, which is known only afterwards."""
    return max(
        (arm for name, arm in arms.items() if name.startswith(ORACLES)), key=lambda arm: fmean(arm.gains)
    )


def gains_table(tables: dict[str, dict[str, Arm]]) -> list[list[str]]:
    """Returns a line for each setting: gains in per cent, the best choice first if there is one."""
    columns = {
        name: arm for name, arm in (SCORES | FIXED).items() if any(arm in arms for arms in tables.values())
    }
    best = {setting: best_of(arms) for setting, arms in with_best(tables).items()}
    lines = [["setting", *["best choice"] * bool(best), *columns]]
    for setting, arms in tables.items():
        cells = [arms[arm].text() if arm in arms else "" for arm in columns.values()]
        own = [f"{best[setting].text()} ({best[setting].name.partition('+')[0]})"] if best else []
        lines.append([setting, *own, *cells])
    return lines


def shares_table(tables: dict[str, dict[str, Arm]], least: float) -> list[list[str]]:
    """Returns a line for each setting whose best choice gains so many per cent: shares of its gain."""
    lines = [["setting", "best choice gains", *SCORES]]
    for setting, arms in tables.items():
        best = fmean(best_of(arms).gains)
        if best >= least:
            shares = [
                f"{arms[arm].text('.0f', best / 100)}%" if arm in arms else "" for arm in SCORES.values()
            ]
            lines.append([setting, f"{best:.1f}%", *shares])
    return lines


def against_table(tables: dict[str, dict[str, Arm]], other: str) -> list[list[str]]:
    """Returns a line for each setting: by how many points each score gains more than another arm."""
    lines = [["setting", *(name for name in SCORES if SCORES[name] != other)]]
    for setting, arms in tables.items():
        cells = []
        for arm in SCORES.values():
            if arm == other:
                continue
            both = arm in arms and other in arms
            pairs = zip(arms[arm].gains, arms[other].gains, strict=True) if both else ()
            gains = tuple(mine - theirs for mine, theirs in pairs)
            cells.append(Arm(arm, gains).text() if gains else "")
        lines.append([setting, *cells])
    return lines


def markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rest])


def draw(tables: dict[str, dict[str, Arm]], path: Path) -> None:
    """Draws a panel for each setting: the gain of every score and rule, with its interval."""
    import matplotlib.pyplot as plt

    columns = SCORES | FIXED
    rows = ceil(len(tables) / ABREAST)
    across = ceil(len(tables) / rows)
    figure, axes = plt.subplots(rows, across, figsize=(2.4 * across, 4 * rows), sharey=True, squeeze=False)
    for axis in axes.flat[len(tables) :]:
        axis.set_axis_off()
    for axis, (setting, arms) in zip(axes.flat, tables.items(), strict=False):
        known = [(place, arms[arm].gains) for place, arm in enumerate(columns.values()) if arm in arms]
        axis.axvline(0, color="grey", linewidth=0.8)
        best = fmean(best_of(arms).gains)
        axis.axvline(best, color="green", linewidth=0.8, linestyle="--", label="best choice")
        axis.errorbar(
            [fmean(gains) for _, gains in known],
            [place for place, _ in known],
            xerr=[interval_reach(gains) or 0 for _, gains in known],
            fmt="o",
        )
        axis.set_title(setting, fontsize=9)
        axis.set_xlabel("gain over random, %", fontsize=8)
    axes[0][0].set_yticks(range(len(columns)), columns)
    axes[0][0].invert_yaxis()
    axes[0][0].legend(fontsize=7, loc="upper right", framealpha=0.85, edgecolor="none")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", type=Path, help="directory of the CSVs of benchmarks/study.py")
    parser.add_argument(
        "--least", type=float, default=3.0, help="shares: only where the best choice gains this"
    )
    parser.add_argument("--picture", type=Path, help="image file to draw")
    given = parser.parse_args()
    paths = [path for path in sorted(given.tables.glob("*.csv")) if not path.stem.endswith("-one-round")]
    for test in ("global", "local"):
        found = read_tables(paths, test)
        tables = with_best(found)
        attacked = {name: arms for name, arms in found.items() if name.startswith("hostile")}
        print(f"\n## {test} test: gain over random, per cent\n\n{markdown(gains_table(tables))}")
        if attacked:
            print(f"\nWith hostile clients\n\n{markdown(gains_table(attacked))}")
        print(f"\nShare of the best choice's gain\n\n{markdown(shares_table(tables, given.least))}")
        print(f"\nMore than Eq. 1, in points\n\n{markdown(against_table(tables, 'fedtlu'))}")
    if given.picture:
        tables = with_best(read_tables(paths, "global"))
        several = {
            name: arms for name, arms in tables.items() if all(len(arm.gains) > 1 for arm in arms.values())
        }
        draw(several, given.picture)


if __name__ == "__main__":
    main()
