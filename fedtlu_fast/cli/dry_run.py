"""Implements ``fedtlu run --dry-run``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from fedtlu_fast.cli.console import note
from fedtlu_fast.cli.duration import duration
from fedtlu_fast.cli.tables import show
from fedtlu_fast.wording import rounds_text

if TYPE_CHECKING:
    from fedtlu_fast.config import RunConfig


def show_estimate(settings: RunConfig, as_json: bool) -> None:
    """Prints the memory, disk and time that a run with these settings needs."""
    from fedtlu_fast.build.run import founding
    from fedtlu_fast.experiments.estimate import estimate
    from fedtlu_fast.runs.as_json import dump_json

    with founding(settings) as (settled, founded):
        found, choice = estimate(settled, founded), founded.note
    if as_json:
        typer.echo(dump_json(asdict(found), indent=1))
        return
    table = Table(title="What this run needs", show_header=False, title_justify="left")
    needed = found.server_bytes + found.worker_bytes
    rounds = rounds_text(settings.rounds, settings.warmup_rounds)
    lines = {
        "parameters": f"{found.parameters:,}",
        "executor": f"{found.executor}, {found.workers} worker(s), "
        f"{found.clients_per_batch} client(s) at a time",
        "memory for vectors": f"{_size(needed)} of {_size(found.free_bytes)} free; plus activations and data",
        "one client": duration(found.client_seconds),
        "one round": f"{duration(found.round_seconds)} ({settings.cohort:,} clients)",
        "one global test": duration(found.test_seconds),
        "the run": f"{duration(found.run_seconds)} ({rounds}), plus local tests",
        "checkpoints on disk": _size(found.checkpoint_bytes),
        "upload of a round's clients": _size(found.upload_bytes),
    }
    for name, text in lines.items():
        table.add_row(name, text)
    show(table, "use --json")
    if choice:
        note(choice)
    if needed > 0.7 * found.free_bytes:
        note("Memory is short: use fewer execution.workers or a smaller execution.clients_per_batch.")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"
