"""Where the command writes: results to standard output, everything else to standard error."""

from __future__ import annotations

from rich.console import Console

results = Console()
notes = Console(stderr=True)
