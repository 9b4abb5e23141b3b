"""The first half of a round: a cohort trains, and what it sends becomes one change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.aggregation import BuffersMean, Start
from fedtlu_fast.config import RunConfig
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.simulation.clock import StageClock
from fedtlu_fast.simulation.executors.executor import Executor
from fedtlu_fast.simulation.executors.lanes import ClientReports, cut
from fedtlu_fast.simulation.executors.orders import Orders
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.soundness import sound
from fedtlu_fast.threats import Collusion, Roles


@dataclass(frozen=True)
class Gathered:
    """What a cohort's training comes to.

    Attributes:
        change: [P], the aggregated change.
        buffers_change: [Q], that of the buffers.
        reports: of the clients.
        kept: those whose changes the aggregate is made of, when the rule chooses among them; empty when too
            few arrived for it to choose. None for a rule that takes all.
        totals: [B], weights of the clients that sent each block; None where everybody sent everything.
    """

    change: Tensor
    buffers_change: Tensor
    reports: ClientReports
    kept: list[int] | None
    totals: NDArray[np.float64] | None = None


def gather(
    config: RunConfig,
    layout: ParameterLayout,
    executor: Executor,
    roles: Roles,
    state: ServerState,
    cohort: Sequence[int],
    clock: StageClock,
    orders: Orders | None = None,
    largest: float = inf,
) -> Gathered:
    """Has the cohort train from `state`, in the round after it, and aggregates.

    Args:
        config: of the run.
        layout: of its model.
        executor: trains the clients.
        roles: which of them plot together.
        state: what they start from.
        cohort: who trains; may be nobody.
        clock: charged for ``train`` and ``aggregate``.
        orders: which blocks the cohort trains and sends; None for all. Each block is then averaged over
            those who sent it, with their weights (arXiv 2408.15600); one that nobody sent does not change.
        largest: weight that no client exceeds; see `aggregation.share`.
    """
    rule = config.aggregation.rule
    held = rule.start(Start(state.params, config.cohort, config.backend, layout, state.round + 1))
    buffers = BuffersMean(state.buffers, config.cohort, rule.chooses, config.backend)
    collusion = Collusion(state.params, roles)
    reports = ClientReports()
    arrived: list[int] = []
    plotters: list[int] = []
    lanes = (
        cut(
            state.round + 1,
            cohort,
            config.execution,
            config.one_by_one,
            orders,
            own=state.personal,
            largest=largest,
        )
        if cohort
        else []
    )
    results = executor.train((state.params, state.buffers), lanes) if lanes else iter(())
    while True:
        with clock("train"):
            result = next(results, None)
        if result is None:
            break
        reports.extend(result.reports)
        if not result.reports.total:
            continue
        with clock("aggregate"):
            if roles.colludes(result.lane.clients[0]):
                collusion.add_(result.vectors[0], result.reports.total)
                plotters += result.lane.clients
                continue
            params, own_buffers = result.vectors
            if result.single:
                held = rule.add(held, result.lane.clients[0], result.reports.total, params)
                buffers.add_(own_buffers, result.reports.total)
                arrived += result.lane.clients
            else:
                held = rule.add_sum(held, result.reports.total, params)
                buffers.add_sum_(own_buffers, result.reports.total)
    with clock("aggregate"):
        if plotters:
            crafted = collusion.crafted(len(cohort))
            if sound(crafted):
                for client, weight in zip(plotters, collusion.weights, strict=True):
                    held = rule.add(held, client, weight, crafted)
                    buffers.add_(state.buffers, weight)
                arrived += plotters
            else:
                reports.refuse(plotters)
        found = rule.finish(held)
        change, kept = found.change, found.kept
        buffers_change = buffers.change(kept)
        totals = None if orders is None else reports.totals(len(layout.blocks))
        if totals is not None:
            _divide_by_senders_(change, layout, reports.total, totals)
    kept_clients = None if kept is None else [arrived[at] for at in kept]
    return Gathered(change, buffers_change, reports, kept_clients, totals)


def _divide_by_senders_(
    change: Tensor, layout: ParameterLayout, total: float, totals: NDArray[np.float64]
) -> None:
    """Makes a mean over all clients, of which the others sent no change, one over those who sent a block."""
    for block, senders in enumerate(totals.tolist()):
        if 0 < senders < total:
            for run in layout.runs([block]):
                change[run] *= total / senders
