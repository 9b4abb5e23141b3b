"""Where the command writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import logging
import os
import sys

from rich.console import Console

# In a pipe or a log nothing says how wide a line may be; rich's 80 columns would break every table.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 150

results = Console(width=_WIDTH)
notes = Console(stderr=True)


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
