"""The first half of a round: a cohort trains, and what it sends becomes one change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedtlu_fast.aggregation import make_buffers_rule, make_rule
from fedtlu_fast.config import RunConfig
from fedtlu_fast.simulation.clock import StageClock
from fedtlu_fast.simulation.executors.executor import Executor
from fedtlu_fast.simulation.executors.lanes import ClientReports, cut
from fedtlu_fast.simulation.state import ServerState
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
    """

    change: Tensor
    buffers_change: Tensor
    reports: ClientReports
    kept: list[int] | None


def gather(
    config: RunConfig,
    executor: Executor,
    roles: Roles,
    state: ServerState,
    cohort: Sequence[int],
    clock: StageClock,
) -> Gathered:
    """Has the cohort train from `state`, in the round after it, and aggregates.

    Args:
        config: of the run.
        executor: trains the clients.
        roles: which of them plot together.
        state: what they start from.
        cohort: who trains; may be nobody.
        clock: charged for ``train`` and ``aggregate``.
    """
    rule = make_rule(config.aggregation, state.params, config.cohort, config.backend)
    buffers_rule = make_buffers_rule(rule, state.buffers, config.cohort, config.backend)
    collusion = Collusion(state.params, roles)
    reports = ClientReports()
    arrived: list[int] = []
    plotters: list[int] = []
    lanes = cut(state.round + 1, cohort, config.execution, config.one_by_one) if cohort else []
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
            for each, vector in zip((rule, buffers_rule), result.vectors, strict=True):
                add_ = each.add_ if result.single else each.add_sum_
                add_(vector, result.reports.total)
            if result.single:
                arrived += result.lane.clients
    with clock("aggregate"):
        if plotters:
            crafted = collusion.crafted(len(cohort))
            for samples in collusion.samples:
                rule.add_(crafted, samples)
                buffers_rule.add_(state.buffers, samples)
        arrived += plotters
        change, kept = rule.change(), rule.kept()
        buffers_change = buffers_rule.change()
    return Gathered(change, buffers_change, reports, None if kept is None else [arrived[at] for at in kept])
