"""How the context of callbacks, the server and its state follow from each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedtlu_fast.runs.results import BestModel
from fedtlu_fast.selection import ServerRoom, quotas
from fedtlu_fast.simulation.run_context import RunContext
from fedtlu_fast.simulation.run_files import RunFiles
from fedtlu_fast.simulation.server import Server
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.tasks.metrics import LOSS, Better


def context_of(
    server: Server, first: ServerState, settings: Mapping[str, Any], out: Path | None, files: RunFiles
) -> RunContext:
    """What callbacks get before round 1.

    Args:
        server: of the run.
        first: the state before round 1.
        settings: of the run, nested as in config.yaml.
        out: the run's directory; None when it writes nothing.
        files: of the run, which adds rows to their lists.
    """
    figures: dict[str, Better] = {"train_loss": "lower"}
    for figure in (LOSS, *server.trainer.task.figures):
        figures |= {f"test_{figure.name}": figure.better, f"local_{figure.name}": figure.better}
    return RunContext(
        layout=server.layout,
        settings=settings,
        figures=figures,
        rounds=server.rounds,
        every=server.evaluation.every,
        out=out,
        server_lr=server.server_lr,
        keep=server.keep,
        rows=files.metrics,
        choices=files.selection,
        _params=first.params,
    )


def steered(server: Server, context: RunContext) -> Server:
    """The server of the next round, with what callbacks have changed."""
    changed = server
    if context.server_lr != server.server_lr:
        changed = replace(changed, server_lr=context.server_lr)
    if context.keep is not None and context.keep != server.keep:
        room = ServerRoom(server.layout, quotas(server.layout, context.keep))
        changed = replace(changed, keep=context.keep, room=room)
    return changed


def best_of(state: ServerState, metric: str, value: float) -> BestModel:
    """The model of a state, to be kept as the best.

    Args:
        state: after a round.
        metric: the key in metrics.jsonl that it was chosen by.
        value: what it has there.
    """
    return BestModel(state.round, metric, value, state.params.cpu().clone(), state.buffers.cpu().clone())
