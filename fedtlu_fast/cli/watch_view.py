"""What ``fedtlu watch`` draws on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fedtlu_fast.cli.duration import duration
from fedtlu_fast.cli.sparkline import sparkline
from fedtlu_fast.runs.followed import FollowedRun
from fedtlu_fast.runs.glance import figure_of, shown_selector
from fedtlu_fast.shown import short_names, visible

MOST_BLOCKS = 12
"""The largest number of blocks in the map of choices."""
QUIET_ROUNDS, QUIET_SECONDS = 10, 30
"""A run that has been silent for so many of its rounds, and for so many seconds, is said to be silent."""


def run_view(run: FollowedRun, width: int) -> RenderableType:
    """Draws one run: progress, curves, the blocks that were chosen lately, and faults.

    Args:
        run: the run after its last look.
        width: of the terminal, in characters.
    """
    parts: list[RenderableType] = [Text(_title(run), style="bold", no_wrap=True, overflow="ellipsis")]
    parts.append(_progress(run))
    if run.rows:
        parts += [_curves(run, max(10, width - 44)), *_choices(run, width)]
    parts += [_line(f"{kind}: {text}", "yellow") for kind, text in run.faults().items()]
    parts += [_line(text, "yellow") for text in remarks(run)]
    return Group(*parts)


def arms_view(title: str, runs: Sequence[FollowedRun], width: int) -> RenderableType:
    """Draws the runs of a comparison, a line each.

    Args:
        title: the line above them.
        runs: the runs after their last look.
        width: of the terminal, in characters.
    """
    table = Table.grid(padding=(0, 2), expand=False)
    for justify in ("left", "left", "right", "left", "left", "left"):
        table.add_column(justify=justify, no_wrap=True)
    room = max(8, min(24, width - 78))
    for run in runs:
        figure, key = _last_figure(run)
        left = run.seconds_left
        table.add_row(
            Text(visible(run.name)),
            Text(run.state if run.state != "not begun" else "waiting", style=STYLES.get(run.state, "")),
            f"{run.done}/{run.rounds}" if run.rounds else str(run.done),
            Text(sparkline(run.curve(key), room), style="cyan"),
            figure,
            f"{duration(left)} left" if left is not None else "",
        )
    faults = [f"{run.name}: {kind}: {text}" for run in runs for kind, text in run.faults().items()]
    more = [f"{run.name}: {text}" for run in runs for text in remarks(run)]
    lines = [_line(text, "yellow") for text in [*faults, *more]]
    return Group(Text(title, style="bold", no_wrap=True, overflow="ellipsis"), table, *lines[:8])


STYLES = {"running": "green", "finished": "green", "stopped": "yellow", "killed": "red"}


def remarks(run: FollowedRun) -> list[str]:
    """Returns what a reader should know of a run's files: damage, and a long silence."""
    found = []
    if run.problem:
        found.append(f"its files cannot be read: {run.problem}")
    if run.damaged:
        found.append(f"lines of metrics.jsonl that hold no row: {run.damaged}")
    each = run.seconds_per_round
    if run.state == "running" and each is not None and run.silence > max(QUIET_SECONDS, QUIET_ROUNDS * each):
        found.append(
            f"silent for {duration(run.silence)}, although a round took {duration(each)}: it may have been "
            f"stopped, or make its last tests"
        )
    return found


def _line(text: str, style: str = "") -> Text:
    return Text(visible(text), style=style, no_wrap=True, overflow="ellipsis")


def _title(run: FollowedRun) -> str:
    tree = run.settings
    if not tree:
        return visible(run.name)
    parts = [
        run.name,
        str(tree["task"]),
        shown_selector(tree),
        f"seed {tree['seed']}",
        f"{tree['cohort']:,} of {tree['clients']:,} clients a round",
    ]
    return visible("  ".join(parts))


def _progress(run: FollowedRun) -> RenderableType:
    if not run.rounds:
        return _line("It has not written its settings yet.")
    grid = Table.grid(padding=(0, 2))
    each, left = run.seconds_per_round, run.seconds_left
    speed = f"{duration(each)} a round" if each is not None else "before its first round"
    trained = run.rows[-1].get("trained") if run.rows else None
    if trained and each:
        speed += f", {trained / each:,.3g} clients/s"
    grid.add_row(
        f"round {run.done}/{run.rounds}",
        ProgressBar(run.rounds, min(run.done, run.rounds), width=24),
        Text(run.state, style=STYLES.get(run.state, "")),
        speed,
        f"{duration(left)} left" if left is not None else "",
    )
    return grid


def _curves(run: FollowedRun, width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for key, title, percent in _figures(run):
        values = run.curve(key)
        if not values:
            continue
        form = "{:.1%}" if percent else "{:.4g}"
        grid.add_row(
            Text(visible(title)),
            Text(sparkline(values, min(width, 60)), style="cyan"),
            f"{form.format(values[0])} → {form.format(values[-1])}",
        )
    return grid


def _figures(run: FollowedRun) -> Iterable[tuple[str, str, bool]]:
    """Yields key, title and whether it is a share of every curve: training loss, global and local tests."""
    yield "train_loss", "train loss", False
    row = run.rows[-1]
    for test, title in (("test", "global"), ("local", "local")):
        names = [key.removeprefix(f"{test}_") for key in row if key.startswith(f"{test}_")]
        for name in names:
            # The loss says nothing beside its exponential.
            if name != "loss" or not run.curve(f"{test}_perplexity"):
                yield f"{test}_{name}", f"{title} {name.replace('_', ' ')}", name == "accuracy"


def _choices(run: FollowedRun, width: int) -> list[RenderableType]:
    """Draws which blocks were chosen in the last rounds: a line for each block, a column for each round."""
    blocks = run.choosable()
    if not blocks:
        return []
    names = dict(zip(blocks, short_names(blocks), strict=True))
    room = max(10, width - max(map(len, names.values())) - 12)
    rounds = [row for row in run.rows if not row.get("warmup")][-min(room, 60) :]
    counts = {name: sum(name in row["selected"] for row in rounds) for name in blocks}
    shown = [name for name in blocks if name in sorted(blocks, key=lambda one: -counts[one])[:MOST_BLOCKS]]
    head = f"blocks chosen in rounds {rounds[0]['round']} to {rounds[-1]['round']}"
    if len(shown) < len(blocks):
        head += f", the {len(shown)} that were chosen most of {len(blocks)}"
    grid = Table.grid(padding=(0, 2))
    for name in shown:
        marks = "".join("■" if name in row["selected"] else "·" for row in rounds)
        grid.add_row(
            Text(visible(names[name])), Text(marks, style="cyan"), f"{counts[name]} of {len(rounds)}"
        )
    return [_line(head), grid]


def _last_figure(run: FollowedRun) -> tuple[str, str]:
    """Returns the last global test in words, and its key in the rows."""
    for row in reversed(run.rows):
        figure = figure_of(row)
        if figure.value is not None:
            return str(figure), f"test_{figure.name}"
    return "", "train_loss"
