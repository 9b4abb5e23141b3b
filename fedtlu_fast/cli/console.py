"""Where the command writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import logging
import os
import sys

from rich.console import Console

from fedtlu_fast.shown import visible

WIDE = 150
"""Columns where nothing says how many there are, as in a pipe or a log; rich's 80 would leave half out."""


def _width() -> int | None:
    known = "COLUMNS" in os.environ or (sys.stdout is not None and sys.stdout.isatty())
    return None if known else WIDE


# Without emoji: what stands between two colons may be a part of a path.
results = Console(width=_width(), emoji=False)
notes = Console(stderr=True, emoji=False)


def hide_bars_of_libraries() -> None:
    """No progress bars of `datasets` and `transformers`, in worker processes neither; before their import."""
    for library in ("HF_DATASETS", "HF_HUB"):
        os.environ[f"{library}_DISABLE_PROGRESS_BARS"] = "1"


def be_quiet(wanted: bool) -> bool:
    """What ``--quiet`` does for all commands: no bars of libraries, no word on what was read."""
    if wanted:
        hide_bars_of_libraries()
        logging.getLogger("fedtlu_fast.data").setLevel(logging.WARNING)
    return wanted


def note(text: str) -> None:
    """One line to standard error, whatever names and paths are in it."""
    notes.print(visible(text), markup=False, highlight=False, soft_wrap=True)
