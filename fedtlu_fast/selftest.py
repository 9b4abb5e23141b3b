"""Tests an installation: ``python -m fedtlu_fast.selftest`` compares every live backend with float64.

The input is random and new every time, and the seed is printed. It takes seconds and needs no other file.
Exit codes: 0 all errors are allowed; 1 an error is too large, or a backend that was named is not live; 2 an
unknown option.
"""

from __future__ import annotations

import argparse
import os
import platform
import secrets
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from fedtlu_fast._version import __version__
from fedtlu_fast.cli.console import note, results
from fedtlu_fast.cli.tables import show

if TYPE_CHECKING:
    from fedtlu_fast.testing.ops import Deviation


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares the backends, prints a table, and returns the exit code.

    Args:
        arguments: the command line after the module's name; None: that of the process.
    """
    chosen = _parser().parse_args(arguments)
    if chosen.interpreter:
        os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is imported
        # NumPy, which computes for the interpreter, would warn of the NaN and Inf that are meant.
        warnings.filterwarnings("ignore", ".*encountered in", RuntimeWarning)
    # Imported now, because torch takes seconds to load and Triton must see the variable.
    import torch

    from fedtlu_fast.ops.backends import BACKENDS, why_not
    from fedtlu_fast.testing.ops import compare_backend

    seed = secrets.randbelow(2**31) if chosen.seed is None else chosen.seed
    versions = f"fedtlu-fast {__version__}, Python {platform.python_version()}, torch {torch.__version__}"
    note(f"{versions}, seed {seed}")
    named = [*chosen.backend, *(["triton"] if chosen.interpreter else [])]
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows: list[Deviation] = []
    for backend in named if chosen.backend else BACKENDS:
        reason = why_not(backend, devices[-1])
        live = [device for device in devices if why_not(backend, device) is None]
        for device in live:
            rows += compare_backend(backend, device, seed)
        if not live:
            note(f"{backend} is not live: {reason}")
            if backend in named:
                return 1
    show(_table(rows), "use a wider terminal")
    wrong = [row for row in rows if not row.ok]
    if wrong:
        names = ", ".join(dict.fromkeys(f"{row.op} on {row.backend}" for row in wrong))
        results.print(f"failed: {names}. Repeat it with --seed {seed}", highlight=False)
        return 1
    results.print(f"all {len(rows)} results are right", highlight=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fedtlu_fast.selftest",
        description="Compares every live backend with float64 on random input.",
    )
    parser.add_argument("--seed", type=int, help="seed of the input; the default is a new one every time")
    parser.add_argument(
        "--backend",
        action="append",
        default=[],
        choices=("triton", "native", "reference"),
        help="a backend that must be live; can be given several times; the default is all that are live",
    )
    parser.add_argument(
        "--interpreter",
        action="store_true",
        help="also run Triton's kernels in its interpreter on the CPU, which takes half a minute",
    )
    return parser


def _table(rows: Sequence[Deviation]) -> Table:
    table = Table(title="Largest errors against float64", title_justify="left")
    for head in ("backend", "operation", "result"):
        table.add_column(head)
    for head in ("error", "allowed", "ok"):
        table.add_column(head, justify="right")
    before = ""
    for row in rows:
        place = f"{row.backend} on {row.device}"
        if before and place != before:
            table.add_section()
        before = place
        table.add_row(
            place, row.op, row.result, f"{row.worst:.1e}", f"{row.allowed:.1e}", "yes" if row.ok else "NO"
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
