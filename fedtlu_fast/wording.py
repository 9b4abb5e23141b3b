"""What users call things: in Python, and on the command line, where the same thing has another name.

Messages hold both (`either`). An error's own text is Python's; the command ``fedtlu`` shows its own.
"""

from __future__ import annotations

import re

_BEGIN, _BETWEEN, _END = "\ufdd0", "\ufdd1", "\ufdd2"
"""No characters, and never to be any: no name of a user's is taken for them."""
_BOTH = re.compile(f"{_BEGIN}([^{_BETWEEN}]*){_BETWEEN}([^{_END}]*){_END}")


def either(python: str, command: str) -> str:
    """A piece of a message: as Python has it, and as the command line has it."""
    return f"{_BEGIN}{python}{_BETWEEN}{command}{_END}"


def in_python(message: str) -> str:
    """A message with the words of Python."""
    return _BOTH.sub(r"\1", message)


def on_command_line(message: str) -> str:
    """A message with the words of the command line."""
    return _BOTH.sub(r"\2", message)


OUT = either("out", "--out")
"""The directory of a new run."""
RESUMED = either("out", "--resume")
"""The directory of a run that goes on."""
RESUME = either("resume=True", "--resume")
"""How a run goes on."""
SELECTORS = either("selectors", "--selectors")
JOBS = either("jobs", "--jobs")
SEEDS = either("seeds", "--seeds")
OVERRIDES = either("overrides", "--set")
ALL_SETTINGS = either("fedtlu_fast.settings.setting_paths()", "fedtlu settings")
"""What lists every setting."""
