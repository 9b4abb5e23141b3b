"""The sentence that says what a comparison shows: in the terminal, the tables, the picture and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from fedtlu_fast.report.aggregate.experiment import paired_interval
from fedtlu_fast.report.arms import BASELINE, arm_names, baseline_of, chooses, is_reference, selector_of
from fedtlu_fast.report.headline import headline_of_arms
from fedtlu_fast.report.verdict import said_of
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure

MOST_NAMED = 4
"""The largest number of arms that the sentence names in one place."""


def conclusion(results: Sequence[ArmResult]) -> str:
    """Says which arm is best, how far from the random choice, and which arms cannot be told from it.

    All of it is about the headline of the global test after the last round. An arm is compared seed by seed
    with the random arm of the same budget; without one, the best arm is compared with the next. It cannot be
    told from random if the 95% interval of its mean gain includes 0 (Student's t over seeds). Gains are in
    per cent of random's number; if clients choose and the headline is a share, they are in points, as in the
    table. References take no part, and an arm of which a seed diverged is never the best, because the mean of
    its other seeds would flatter it.

    Args:
        results: the arms with all seeds.
    """
    arms = [result for result in results if not is_reference(result)]
    if not arms:
        return "No round came after the warm-up, so that no arm has chosen anything."
    field = _Field.of(arms, headline_of_arms(results))
    whole, lost = field.whole(), field.lost()
    if not whole:
        every = " with every seed" if field.seeds > 1 else ""
        return f"No arm reached a finite {field.figure.title}{every}."
    leaders = field.best(whole)
    extreme = "lowest" if field.figure.better == "lower" else "highest"
    over = f" in the mean of {field.seeds} seeds" if field.seeds > 1 else ""
    text = f"{_listed(leaders)} {_has(leaders)} the {extreme} {field.figure.title}, "
    text += f"{said_of(field.figure, whole[leaders[0]])}{over}{_lead(field, leaders, whole)}"
    told = [*leaders]
    lesser = field.lesser(leaders, whole)
    if lesser:
        told += lesser
        beside = field.beside(lesser[0], baseline_of(lesser[0]))
        text += f"; of those that update less, {_listed(lesser)} {_is(lesser)} best"
        text += f", {beside}" if beside else ""
    open_ = [name for name in field.ends if name not in told and field.is_open(name)]
    if open_:
        text += f"; {_listed(open_)} cannot be told from random with {field.seeds} seeds"
    if lost:
        every = " with every seed" if field.seeds > 1 else ""
        text += f"; {_listed(lost)} reached no finite {field.figure.title}{every}"
    if field.seeds == 1 and len(whole) > 1:
        text += "; one seed shows no spread, so that all this may be chance"
    return f"{text}."


@dataclass(frozen=True)
class _Field:
    """The arms of a comparison and where they ended.

    Attributes:
        figure: the headline.
        points: whether gains are differences in points, and not per cent of the other arm's number.
        seeds: the number of seeds.
        runs: the number of runs of each arm.
        ends: the headline of each arm after the last round, by seed; without runs that have none.
        shares: which share of the parameters each arm updated in a targeted round, where that is known.
    """

    figure: Figure
    points: bool
    seeds: int
    runs: Mapping[str, int]
    ends: Mapping[str, Mapping[int, float]]
    shares: Mapping[str, float]

    @classmethod
    def of(cls, arms: Sequence[ArmResult], figure: Figure) -> _Field:
        runs = {name: [arm for arm in arms if arm.selector == name] for name in arm_names(arms)}
        shares = {name: [run.summary.get("updated_share") for run in own] for name, own in runs.items()}
        return cls(
            figure=figure,
            points=figure.percent and any(map(chooses, arms)),
            seeds=len({arm.seed for arm in arms}),
            runs={name: len(own) for name, own in runs.items()},
            ends={
                name: {
                    run.seed: float(run.summary[figure.column])
                    for run in own
                    if run.summary.get(figure.column) is not None
                }
                for name, own in runs.items()
            },
            shares={
                name: mean(share for share in own if share is not None)
                for name, own in shares.items()
                if None not in own
            },
        )

    def whole(self) -> dict[str, float]:
        """Returns the mean of each arm all of whose runs ended with a number."""
        return {name: mean(own.values()) for name, own in self.ends.items() if len(own) == self.runs[name]}

    def lost(self) -> list[str]:
        """Returns the arms some of whose runs have no number, because they diverged."""
        return [name for name, own in self.ends.items() if len(own) < self.runs[name]]

    def best(self, means: Mapping[str, float]) -> list[str]:
        """Returns the best of these arms; several if their means are equal."""
        best = (min if self.figure.better == "lower" else max)(means.values())
        return [name for name, value in means.items() if value == best]

    def lesser(self, leaders: Sequence[str], means: Mapping[str, float]) -> list[str]:
        """Returns the best of several arms that update less than the leaders, if these update everything."""
        if any(self.shares.get(name, 0.0) < 1 for name in leaders):
            return []
        less = {name: value for name, value in means.items() if self.shares.get(name, 1.0) < 1}
        return self.best(less) if len(less) > 1 else []

    def gains(self, name: str, base: str) -> list[float]:
        """Returns how much better an arm is than another, for each seed that both have."""
        own, other = self.ends[name], self.ends.get(base, {})
        both = [(own[seed], other[seed]) for seed in own if seed in other and name != base]
        if self.points:
            sign = 1 if self.figure.better == "higher" else -1
            return [100 * sign * (mine - its) for mine, its in both]
        found = [self.figure.gain(mine, its) for mine, its in both]
        return [gain for gain in found if gain is not None]

    def is_open(self, name: str) -> bool:
        """Whether several seeds leave it open if an arm differs from its random arm."""
        low, high = paired_interval(self.gains(name, baseline_of(name)))
        return low is not None and high is not None and low <= 0 <= high

    def beside(self, name: str, base: str, called: str = "") -> str:
        """Says how far an arm is from another, and how surely; empty if they have no seed in common.

        Args:
            name: the arm.
            base: the other one.
            called: stands before the name of the other one.
        """
        gains = self.gains(name, base)
        if not gains:
            return ""
        lower = (self.figure.better == "lower") == (mean(gains) >= 0)
        unit = " points" if self.points else "%"
        text = f"{abs(mean(gains)):.2f}{unit} {'below' if lower else 'above'} {called}{base}"
        low, high = paired_interval(gains)
        if low is None or high is None:
            return text
        same = sum(gain * mean(gains) > 0 for gain in gains)
        where = f"{same} of {len(gains)} seeds"
        if same == len(gains):
            where = "both seeds" if same == 2 else f"all {same} seeds"
        side = "lower" if lower else "higher"
        if low <= 0 <= high:
            joint = "but" if same == len(gains) else "and"
            return f"{text} ({side} in {where}, {joint} the 95% interval includes 0)"
        ends = sorted((abs(low), abs(high)))
        return f"{text} ({side} in {where}, 95% interval {ends[0]:.2f} to {ends[1]:.2f}{unit})"


def _lead(field: _Field, leaders: Sequence[str], means: Mapping[str, float]) -> str:
    """Says how far the best arms are from random, or else from the next arm."""
    if any(selector_of(name) == BASELINE for name in leaders):
        return "" if len(means) == len(leaders) else ", so that no arm did better than a random choice"
    said = {field.beside(name, baseline_of(name)) for name in leaders}
    if said == {""}:
        rest = {name: value for name, value in means.items() if name not in leaders}
        said = {field.beside(name, field.best(rest)[0], "the next, ") for name in leaders if rest}
    # Leaders of different budgets may be compared with different random arms.
    return f", {said.pop()}" if len(said) == 1 and said != {""} else ""


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:MOST_NAMED]]
    if len(names) > MOST_NAMED:
        shown.append(f"{len(names) - MOST_NAMED} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
