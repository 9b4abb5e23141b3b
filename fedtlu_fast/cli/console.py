"""Where the command writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import os
import sys

from rich.console import Console

# In a pipe or a log nothing says how wide a line may be; rich's 80 columns would break every table.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 150

results = Console(width=_WIDTH)
notes = Console(stderr=True)
