"""The consoles of the command: results go to standard output, everything else to standard error."""

from __future__ import annotations

import logging
import os
import sys

from rich.console import Console

from fedtlu_fast.shown import visible

WIDE = 150
"""The width if it is unknown, as in a pipe or a log; rich's 80 columns would omit half of a table."""


def _width() -> int | None:
    known = "COLUMNS" in os.environ or (sys.stdout is not None and sys.stdout.isatty())
    return None if known else WIDE


# Without emoji, because text between two colons may be a part of a path.
results = Console(width=_width(), emoji=False)
notes = Console(stderr=True, emoji=False)


def hide_bars_of_libraries() -> None:
    """Turns off bars of `datasets` and `transformers`, also in workers; call it before their import."""
    for library in ("HF_DATASETS", "HF_HUB"):
        os.environ[f"{library}_DISABLE_PROGRESS_BARS"] = "1"


def be_quiet(wanted: bool) -> bool:
    """Handles ``--quiet`` for all commands: no bars of libraries, no messages about files that were read."""
    if wanted:
        hide_bars_of_libraries()
        logging.getLogger("fedtlu_fast.data").setLevel(logging.WARNING)
    return wanted


def note(text: str) -> None:
    """Prints one line to standard error, whatever characters its names and paths contain."""
    notes.print(visible(text), markup=False, highlight=False, soft_wrap=True)
