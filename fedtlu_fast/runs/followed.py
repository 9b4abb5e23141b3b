"""A run that another process runs, as far as its files tell: settings, rows, state, speed and faults."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any

from fedtlu_fast.runs.directory import CONFIG, METRICS, SELECTION
from fedtlu_fast.runs.follow import LogFollower, first_row
from fedtlu_fast.runs.glance import DAMAGE, settings_in, shown_selector, what_is_wrong
from fedtlu_fast.runs.standing import State, silence, state_of

_NUMBER = re.compile(r"\d+")
LATELY = 10
"""The number of last rounds that the speed is measured over."""
_LISTS, _MAPPINGS = ("selected", "refused", "nonfinite_blocks"), ("dropped", "failed")
_NUMBERS = ("train_loss", "test_perplexity")
_COUNTS = ("rounds", "clients", "cohort", "seed")


class FollowedRun:
    """A run that is looked at again and again.

    Attributes:
        path: its directory, which may not exist yet.
        name: what it is called.
        until: see `state_of`.
        settings: its settings as a nested mapping; empty as long as none are written.
        rows: the rows of metrics.jsonl so far.
        state: how it stood at the last look.
        problem: why its files could not be read at the last look; empty if they could.
    """

    def __init__(self, path: Path, name: str, until: int | None = None) -> None:
        """Names the run; nothing is read."""
        self.path, self.name, self.until = path, name, until
        self.settings: Mapping[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.state: State = "not begun"
        self.problem = ""
        self._log = LogFollower(path / METRICS)
        self._blocks: list[str] = []
        self._written, self._odd = 0.0, 0

    def look(self) -> list[dict[str, Any]]:
        """Reads what is new, and returns the new rows.

        The state is read first: after a state that is final no row can follow.
        """
        self.problem = ""
        try:
            self.state = state_of(self.path, self.until)
            self._read_settings()
            anew, rows = self._log.look()
        except DAMAGE as error:
            self.problem = what_is_wrong(error)
            return []
        if anew:
            self.rows.clear()
            self._odd = 0
        whole = [row for row in rows if _is_whole(row)]
        self._odd += len(rows) - len(whole)
        self.rows += whole
        return whole

    @property
    def rounds(self) -> int:
        """The number of rounds that the run is to have; 0 if it is not known yet."""
        return self.until if self.until is not None else int(self.settings.get("rounds", 0))

    @property
    def done(self) -> int:
        """The number of finished rounds."""
        return int(self.rows[-1]["round"]) if self.rows else 0

    @property
    def seconds_per_round(self) -> float | None:
        """The mean of the last rounds, in seconds; None before the first round."""
        found = [float(row["seconds"]) for row in self.rows[-LATELY:] if row.get("seconds") is not None]
        return mean(found) if found else None

    @property
    def seconds_left(self) -> float | None:
        """The time that the remaining rounds take at the last rounds' speed; None if it is not known."""
        each = self.seconds_per_round
        if each is None or self.state != "running" or not self.rounds:
            return None
        return max(0.0, (self.rounds - self.done) * each)

    @property
    def silence(self) -> float:
        """The seconds since the run has written something."""
        return silence(self.path)

    @property
    def damaged(self) -> int:
        """The number of lines of metrics.jsonl that hold no row."""
        return self._log.damaged + self._odd

    def curve(self, key: str) -> list[float]:
        """Returns the numbers that the rows have under a key; rounds without a test are left out."""
        found = (row.get(key) for row in self.rows)
        return [float(one) for one in found if isinstance(one, int | float) and not isinstance(one, bool)]

    def choosable(self) -> list[str]:
        """Returns the blocks that the server seems to choose among, in the model's order.

        Logs do not say it before the run has finished. These are the blocks that some targeted round has left
        out, and blocks whose names differ from theirs in numbers only. Before the first targeted round the
        list is empty.
        """
        targeted = [set(row["selected"]) for row in self.rows if not row.get("warmup")]
        if not targeted:
            return []
        blocks, always = self._all_blocks(targeted), set.intersection(*targeted)
        alike = {_NUMBER.sub("*", name) for name in blocks if name not in always}
        return [name for name in blocks if name not in always or _NUMBER.sub("*", name) in alike]

    def faults(self) -> dict[str, str]:
        """Returns what went wrong so far, by kind, each with how often and the last reason."""
        found: dict[str, str] = {}
        for kind, key in (("failed clients", "failed"), ("dropped clients", "dropped")):
            events = [event for row in self.rows for event in (row.get(key) or {}).items()]
            if events:
                client, reason = events[-1]
                found[kind] = f"{len(events)}; client {client} last: {reason}"
        refused = [client for row in self.rows for client in row.get("refused") or ()]
        if refused:
            found["refused updates"] = f"{len(refused)}; client {refused[-1]} last"
        broken = [name for row in self.rows for name in row.get("nonfinite_blocks") or ()]
        if broken:
            found["blocks left out, not finite"] = f"{len(broken)}; {broken[-1]} last"
        idle = [row["round"] for row in self.rows if row.get("kept_clients") == []]
        if idle:
            found["rounds that changed nothing"] = (
                f"{len(idle)}; too few clients for the rule, last in {idle[-1]}"
            )
        lost = [row["round"] for row in self.rows if row.get("diverged")]
        if lost:
            found["diverged"] = f"the global test gave no number after round {lost[0]}"
        return found

    def _all_blocks(self, targeted: Sequence[set[str]]) -> list[str]:
        if not self._blocks:
            self._blocks = list((first_row(self.path / SELECTION) or {}).get("block_scores", ()))
        return self._blocks or sorted(set().union(*targeted))

    def _read_settings(self) -> None:
        with suppress(FileNotFoundError):
            written = os.stat(self.path / CONFIG).st_mtime
            if written != self._written:  # a run that is resumed may have more rounds
                self.settings, self._written = _checked(settings_in(self.path)), written


def _checked(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns settings that hold all that is shown of a run; raises one of `DAMAGE` for others."""
    shown_selector(tree)
    odd = next((name for name in _COUNTS if type(tree[name]) is not int), None)
    if odd is not None:
        raise ValueError(f"{CONFIG}: {odd} is no whole number")
    str(tree["task"])
    return tree


def _is_whole(row: Mapping[str, Any]) -> bool:
    """Tells whether a row has what is shown of every round; a stranger's log may hold anything."""
    figures = (*_NUMBERS, *(key for key in row if key.startswith(("test_", "local_"))), "seconds", "trained")
    return (
        {*_LISTS, *_MAPPINGS, *_NUMBERS, "warmup", "kept_clients"} <= row.keys()
        and all(isinstance(row[key], list) and _are_hashable(row[key]) for key in _LISTS)
        and all(isinstance(row[key], dict) for key in _MAPPINGS)
        and all(isinstance(row.get(key), int | float | None) for key in figures)
    )


def _are_hashable(items: list[Any]) -> bool:
    return all(isinstance(item, str | int) for item in items)
