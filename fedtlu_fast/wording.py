"""Names of things that differ between Python and the command line, for messages.

A message holds both (`either`). An error's text shows the name in Python; the command ``fedtlu`` shows the
name on the command line.
"""

from __future__ import annotations

import re

_BEGIN, _BETWEEN, _END = "\ufdd0", "\ufdd1", "\ufdd2"
"""Code points that never become characters, so that no name of a user's contains them."""
_BOTH = re.compile(f"{_BEGIN}([^{_BETWEEN}]*){_BETWEEN}([^{_END}]*){_END}")


def either(python: str, command: str) -> str:
    """A piece of a message with both wordings: Python's, and the command line's."""
    return f"{_BEGIN}{python}{_BETWEEN}{command}{_END}"


def in_python(message: str) -> str:
    """The message in the wording of Python."""
    return _BOTH.sub(r"\1", message)


def on_command_line(message: str) -> str:
    """The message in the wording of the command line."""
    return _BOTH.sub(r"\2", message)


OUT = either("out", "--out")
"""The directory of a new run."""
RESUMED = either("out", "--resume")
"""The directory of a run that is resumed."""
RESUME = either("resume=True", "--resume")
"""How to resume a run."""
SELECTORS = either("selectors", "--selectors")
JOBS = either("jobs", "--jobs")
SEEDS = either("seeds", "--seeds")
OVERRIDES = either("overrides", "--set")
ALL_SETTINGS = either("fedtlu_fast.config.settings.setting_paths()", "fedtlu settings")
"""How to list every setting."""


def rounds_told(rounds: int, warmup_rounds: int) -> str:
    """The rounds as titles have them: ``30 rounds (15 warm-up, 15 targeted)``.

    Args:
        rounds: number of all rounds.
        warmup_rounds: number of the first ones, which update every block; it may exceed `rounds`.
    """
    warmup = min(warmup_rounds, rounds)
    return f"{rounds} rounds ({warmup} warm-up, {rounds - warmup} targeted)"
