"""Lets messages name things differently in Python and on the command line, such as `out` and ``--out``.

A message contains both names (`either`). The text of an error shows the name in Python; the command
``fedtlu`` shows the name on the command line.
"""

from __future__ import annotations

import re

_BEGIN, _BETWEEN, _END = "\ufdd0", "\ufdd1", "\ufdd2"
"""Marks around the two names; Unicode never assigns these code points, so no user's text contains them."""
_BOTH = re.compile(f"{_BEGIN}([^{_BETWEEN}]*){_BETWEEN}([^{_END}]*){_END}")


def either(python: str, command: str) -> str:
    """Returns a piece of a message that contains both names."""
    return f"{_BEGIN}{python}{_BETWEEN}{command}{_END}"


def in_python(message: str) -> str:
    """Returns the message with the names in Python."""
    return _BOTH.sub(r"\1", message)


def on_command_line(message: str) -> str:
    """Returns the message with the names on the command line."""
    return _BOTH.sub(r"\2", message)


OUT = either("out", "--out")
"""The directory of a new run."""
RESUMED = either("out", "--resume")
"""The directory of a run that is resumed."""
RESUME = either("resume=True (of a Federation: federation.resume(out))", "--resume")
"""The argument or option that resumes a run."""
SELECTORS = either("selectors", "--selectors")
JOBS = either("jobs", "--jobs")
SEEDS = either("seeds", "--seeds")
OVERRIDES = either("overrides", "--set")
ALL_SETTINGS = either("fedtlu_fast.config.names.setting_paths()", "fedtlu settings")
"""The function or command that lists every setting."""


def rounds_text(rounds: int, warmup_rounds: int) -> str:
    """Describes the rounds for titles: ``30 rounds (15 warm-up, 15 targeted)``.

    Args:
        rounds: the number of rounds, warm-up included.
        warmup_rounds: the number of first rounds that update every block; it may exceed `rounds`.
    """
    warmup = min(warmup_rounds, rounds)
    return f"{rounds} rounds ({warmup} warm-up, {rounds - warmup} targeted)"


def seeds_text(seeds: int) -> str:
    """Describes the seeds for titles of tables: ``2 seeds: mean ± std``, or ``1 seed``."""
    return f"{seeds} seeds: mean ± std" if seeds > 1 else "1 seed"
