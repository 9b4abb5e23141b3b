"""The sentence that says what a comparison shows: in the terminal, the tables, the picture and the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from fedtlu_fast.report.aggregate.experiment import paired_interval
from fedtlu_fast.report.arms import arm_names, baseline_of, is_random, is_reference
from fedtlu_fast.report.headline import headline_of_arms
from fedtlu_fast.report.held_out import looks_at_held_out
from fedtlu_fast.report.verdict import said_of
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.tasks.metrics import Figure

MOST_NAMED = 4
"""The largest number of arms that the sentence names in one place."""


def conclusion(results: Sequence[ArmResult]) -> str:
    """Says which arm is best, how far from the random choice, and which arms cannot be told from it.

    All of it is about the headline of the global test after the last round. An arm is compared seed by seed
    with the random arm of the same budget; without one, the best arm is compared with the next. It cannot be
    told from random if the 95% interval of its mean gain includes 0 (Student's t over seeds), or if several
    seeds ran and only one can be compared. Gains are in points if the headline is shown in per cent, and else
    in per cent of random's number, which a seed in which that is 0 does not have; both as in the table. Where
    a gain rests on fewer seeds than ran, the sentence says on how many. References take no part, and an arm
    of which a seed diverged is never the best, because the mean of its other seeds would flatter it. An arm
    that looks at held-out samples is called that, and the best of those that do not is named too.

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
    text = f"{field.marked(leaders)} {_has(leaders)} the {extreme} {field.figure.title}, "
    text += f"{said_of(field.figure, whole[leaders[0]])}{field.over(leaders)}{_lead(field, leaders, whole)}"
    for among, names in field.lesser(leaders, whole):
        beside = field.beside(names[0], field.baseline(names[0]))
        text += f"; of those that {among}, {field.marked(names)} {_is(names)} best"
        text += f", {beside}" if beside else ""
    text += _open(field)
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
        seeds: the number of seeds.
        runs: the number of runs of each arm.
        ends: the headline of each arm after the last round, by seed; without runs that have none.
        shares: which share of the parameters each arm updated in a targeted round, where that is known.
        looking: the arms that look at held-out samples.
    """

    figure: Figure
    seeds: int
    runs: Mapping[str, int]
    ends: Mapping[str, Mapping[int, float]]
    shares: Mapping[str, float]
    looking: frozenset[str]

    @classmethod
    def of(cls, arms: Sequence[ArmResult], figure: Figure) -> _Field:
        runs = {name: [arm for arm in arms if arm.selector == name] for name in arm_names(arms)}
        shares = {name: [run.summary.get("updated_share") for run in own] for name, own in runs.items()}
        return cls(
            figure=figure,
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
            looking=frozenset(name for name, own in runs.items() if any(map(looks_at_held_out, own))),
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

    def lesser(self, leaders: Sequence[str], means: Mapping[str, float]) -> Iterator[tuple[str, list[str]]]:
        """Yields what tells lesser arms from better ones, and the best of them.

        If the best ones update everything, the best of several that update less; and if the best ones look
        at held-out samples, the best that do not.
        """
        left, looks = dict(means), True
        for _ in range(2):
            if looks and self.looking.issuperset(leaders):
                looks = False
                left = {name: value for name, value in left.items() if name not in self.looking}
                among, fewest = "do not look at any", 1
            elif all(self.shares.get(name, 0.0) >= 1 for name in leaders):
                left = {name: value for name, value in left.items() if self.shares.get(name, 1.0) < 1}
                among, fewest = "update less", 2
            else:
                return
            if len(left) < fewest:
                return
            leaders = self.best(left)
            yield among, leaders

    def marked(self, names: Sequence[str]) -> str:
        """Lists the best arms, and says which of them look at held-out samples."""
        if self.looking.issuperset(names):
            looks = "looks" if len(names) == 1 else "look"
            return f"{_listed(names)}, which {looks} at held-out samples,"
        return _listed(
            [f"{one} (looks at held-out samples)" if one in self.looking else one for one in names]
        )

    def over(self, names: Sequence[str]) -> str:
        """Says over how many seeds the means of these arms are; they are equal."""
        fewest = min(len(self.ends[name]) for name in names)
        if fewest < self.seeds:
            return f" in {'the mean of ' if fewest > 1 else ''}{fewest} of {self.seeds} seeds"
        return f" in the mean of {fewest} seeds" if fewest > 1 else ""

    def baseline(self, name: str) -> str:
        """Returns the random arm that an arm is compared with."""
        return baseline_of(name, self.ends)

    def gains(self, name: str, base: str) -> list[float]:
        """Returns how much better an arm is than another, for each seed in which that can be said."""
        own, other = self.ends[name], self.ends.get(base, {})
        both = [(own[seed], other[seed]) for seed in own if seed in other and name != base]
        found = [self.figure.shown_gain(mine, its) for mine, its in both]
        return [gain for gain in found if gain is not None]

    def is_open(self, name: str) -> bool:
        """Whether the seeds leave it open if an arm differs from its random arm; never with one seed."""
        gains = self.gains(name, self.baseline(name))
        if len(gains) == 1:
            return self.seeds > 1
        low, high = paired_interval(gains)
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
        unit = " points" if self.figure.percent else "%"
        text = f"{abs(mean(gains)):.2f}{unit} {'below' if lower else 'above'} {called}{base}"
        if len(gains) < self.seeds:
            seeds = "seed" if len(gains) == 1 else "seeds"
            text += f" in the {len(gains)} {seeds} of {self.seeds} that can be compared"
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
    if any(map(is_random, leaders)):
        return "" if len(means) == len(leaders) else ", so that no arm did better than a random choice"
    said = {field.beside(name, field.baseline(name)) for name in leaders}
    if said == {""}:
        rest = {name: value for name, value in means.items() if name not in leaders}
        said = {field.beside(name, field.best(rest)[0], "the next, ") for name in leaders if rest}
    # Leaders of different budgets may be compared with different random arms.
    return f", {said.pop()}" if len(said) == 1 and said != {""} else ""


def _open(field: _Field) -> str:
    """Says which arms cannot be told from random, the best ones among them; empty for none."""
    lost = field.lost()
    others = [name for name in field.ends if not is_random(name) and name not in lost]
    found = [name for name in others if field.is_open(name)]
    if not found:
        return ""
    seeds = sorted({len(field.gains(name, field.baseline(name))) for name in found})
    number = (
        f"{seeds[0]} seed{'s' * (seeds[0] > 1)}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    )
    if found == others and not set(lost) - {field.baseline(name) for name in found}:
        return f"; no arm can be told from random with {number}"
    return f"; {_listed(found)} cannot be told from random with {number}"


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:MOST_NAMED]]
    if len(names) > MOST_NAMED:
        shown.append(f"{len(names) - MOST_NAMED} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
