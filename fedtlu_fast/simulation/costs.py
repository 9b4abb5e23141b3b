"""Measures what a run has cost, for its costs.json."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from fedtlu_fast.client_steps.personal import personal_step
from fedtlu_fast.clients.batches import normalises_batches
from fedtlu_fast.clients.client_errors import check_interrupt, left_to_the_round
from fedtlu_fast.costs.blocks import NOTHING, Kept
from fedtlu_fast.costs.flops import measure_costs
from fedtlu_fast.costs.rounds import run_costs
from fedtlu_fast.data.population import Population, count, example_samples
from fedtlu_fast.errors import StorageError
from fedtlu_fast.runs.costs import write_costs
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.shown import one_line
from fedtlu_fast.simulation.server import Server

logger = logging.getLogger("fedtlu_fast")

SAMPLES = 2
"""Of the batch by which a model is measured: BatchNorm has no statistics of one."""


def write_measured_costs(
    server: Server, selection: Sequence[Mapping[str, Any]], directory: RunDirectory | None
) -> None:
    """Measures the model's FLOPs and writes costs.json, where the run's plan says so and there are rounds.

    Where that fails, a warning says so.

    Args:
        server: of the run.
        selection: rows of selection.jsonl, all of them.
        directory: of the run; None when it writes nothing.

    Raises:
        StorageError: the file cannot be written.
    """
    if directory is None or not selection or not server.evaluation.flops:
        return
    try:
        blocks, rounds = _measured(server, selection)
        write_costs(directory, blocks, rounds)
    except StorageError:
        raise
    except BaseException as error:
        check_interrupt(error)
        kind = type(error).__name__
        logger.warning("costs.json could not be made, all else was: %s: %s", kind, one_line(error))


def _measured(
    server: Server, selection: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the blocks cost, and each round. Every sample counts at the length of the global test's, padding
    included.
    """
    task, population, chooser = server.trainer.task, server.population, server.chooser
    batch = example_samples(population).take(np.arange(SAMPLES) % count(population.test))
    costs = measure_costs(task, server.layout, batch)
    rounds = run_costs(
        costs,
        selection,
        server.trainer.local,
        cache(partial(_held, population)),
        0 if chooser is None else chooser.probe_batches,
        _kept(server),
        chooser is None or chooser.reported,
        not normalises_batches(task.model),
        cache(partial(_looked_at, server)),
        server.steps.message_bytes,
    )
    blocks = {
        "names": list(costs.names),
        "parameters": costs.parameters.tolist(),
        "buffers": costs.buffers,
        "forward_flops": costs.forward,
        "weight_flops": costs.weight.tolist(),
        "reach_flops": costs.reach.tolist(),
    }
    rows = zip(selection, rounds, strict=True)
    return blocks, [{"round": row["round"], **each.row()} for row, each in rows]


def _kept(server: Server) -> Kept:
    own = personal_step(server.steps.steps)
    return NOTHING if own is None else Kept(own.part.blocks, own.part.buffers, own.alternate)


def _looked_at(server: Server, client: int) -> int:
    """Number of samples that pass through the model before a client chooses what it sends."""
    passes = 0 if server.client_rule is None else server.client_rule.looks
    with left_to_the_round():
        return passes * len(server.looked_at(client)) if passes else 0
    return 0


def _held(population: Population, client: int) -> int:
    with left_to_the_round():  # which left it out
        return len(population.train(client))
    return 0
