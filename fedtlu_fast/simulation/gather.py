"""The first half of a round: a cohort trains, and what it sends becomes one change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.aggregation import AggregationRule, BuffersMean, Start
from fedtlu_fast.aggregation.returned import check_aggregated
from fedtlu_fast.aggregation.senders import divide_by_senders_
from fedtlu_fast.client_steps.server_round import ServerRound
from fedtlu_fast.client_steps.step import Arrival, RoundChange, Vectors
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.executors.executor import Executor
from fedtlu_fast.executors.lanes import ClientReports, Lane
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.own_draws import seeded_for
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.scoring.client_values import places_in
from fedtlu_fast.simulation.clock import StageClock
from fedtlu_fast.simulation.received import as_received
from fedtlu_fast.soundness import sound
from fedtlu_fast.unchanged import unchanged

RULE = "aggregation.rule"
"""The setting that errors of a rule name."""


@dataclass(frozen=True)
class Gathered:
    """What a cohort's training comes to.

    Attributes:
        aggregated: what the rule and then the server's halves of the client steps made of what arrived.
        reports: of the clients.
        kept: the clients whose changes the aggregate is made of, when the rule chooses among them; empty when
            too few arrived for it to choose. None for a rule that takes all.
        totals: [B], weights of the clients that sent each block; None where everybody sent everything.
        memory: what the rule remembers for the next round.
    """

    aggregated: RoundChange
    reports: ClientReports
    kept: list[int] | None
    totals: NDArray[np.float64] | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)


def gather(
    layout: ParameterLayout,
    executor: Executor,
    rule: AggregationRule,
    begin: Start,
    buffers: BuffersMean,
    server_round: ServerRound,
    start: Vectors,
    lanes: Sequence[Lane],
    clock: StageClock,
    seed: int,
    scored: ParameterLayout,
    ordered: bool = False,
    asked: Blocks | None = None,
) -> Gathered:
    """Has a cohort train and aggregates what arrives.

    Args:
        layout: of the model.
        executor: trains the clients.
        rule: aggregates the parameters.
        begin: what the rule knows before anything arrives.
        buffers: an empty aggregate of the buffers.
        server_round: takes what arrives through the client steps' halves on the server.
        start: parameters [P] and buffers [Q] that the clients start from.
        lanes: the cohort; may be none.
        clock: charged for ``train`` and ``aggregate``.
        seed: of the run.
        scored: the layout with the layers that make the blocks' scores, for facts about single clients.
        ordered: whether clients send chosen blocks. Each block is then averaged over the clients that sent
            it, with their weights (arXiv 2408.15600); one that nobody sent does not change.
        asked: the blocks that every client was asked to send; None if their orders differ.
    """
    places = partial(places_in, layout, seed, begin.round)
    reports, arrived, held_back = ClientReports(), list[int](), dict[int, ClientReports]()
    kept_as_is = {"start.base": begin.base, "start.layout.offsets": layout.offsets}
    kept_as_is |= {f"start.memory[{name!r}]": tensor for name, tensor in begin.memory.items()}
    with (
        named_errors(RULE, rule),
        unchanged(RULE, rule, "start", kept_as_is),
        seeded_for(rule, seed, f"{RULE}.start", begin.round),
    ):
        held = rule.start(begin)
    results = executor.train(start, lanes) if lanes else iter(())
    while True:
        with clock("train"):
            result = next(results, None)
        if result is None:
            break
        own = result.reports
        if not own.total:
            reports.extend(own)
            continue
        with clock("aggregate"):
            # A worker elsewhere may have trained on another device.
            vectors = result.vectors[0].to(begin.base.device), result.vectors[1].to(begin.base.device)
            arrival = Arrival(result.lane.clients, vectors, result.single, own.total)
            passed = server_round.receive(arrival)
            if passed is None:
                held_back |= dict.fromkeys(arrival.clients, own)
                own = replace(own, norms=None)
            elif passed.single and passed.vectors[0] is not vectors[0]:
                own = as_received(own, passed, begin.base, scored, begin.backend, places)
            reports.extend(own)
            with unchanged(RULE, rule, "add", kept_as_is):
                held = _add_(rule, held, buffers, passed, arrived, seed, begin.round)
    with clock("aggregate"):
        for late in server_round.finish():
            if sound(late.vectors[0]):
                if late.single and late.clients[0] in held_back:
                    held_own = held_back[late.clients[0]]
                    own = as_received(held_own, late, begin.base, scored, begin.backend, places)
                    reports.stats |= own.stats
                    reports.values |= own.values
                    if own.norms is not None:
                        reports.add_norms(own.norms)
                with unchanged(RULE, rule, "add", kept_as_is):
                    held = _add_(rule, held, buffers, late, arrived, seed, begin.round)
            else:
                reports.refuse(late.clients)
        with named_errors(RULE, rule), unchanged(RULE, rule, "finish", kept_as_is):
            with seeded_for(rule, seed, f"{RULE}.finish", begin.round):
                finished = rule.finish(held)
            found = check_aggregated(rule, finished, begin.base, len(arrived))
        change, kept = found.change, found.kept
        totals = reports.totals(len(layout.blocks)) if ordered else None
        if totals is not None:
            divide_by_senders_(change, layout, reports.total, totals)
        aggregated = RoundChange(
            change,
            buffers.change(kept),
            () if totals is None else tuple(np.flatnonzero(totals == 0).tolist()),
            empty=not reports.total or kept == [],
            ordered=ordered,
            weight=reports.total,
            asked=asked,
        )
        aggregated = server_round.complete(aggregated, reports.memory)
    kept_clients = None if kept is None else [arrived[at] for at in kept]
    return Gathered(aggregated, reports, kept_clients, totals, found.memory)


def _add_(
    rule: AggregationRule,
    held: Any,
    buffers: BuffersMean,
    arrival: Arrival | None,
    arrived: list[int],
    seed: int,
    round_index: int,
) -> Any:
    """The rule's state with what arrived; adds its buffers and its clients to the others'."""
    if arrival is None:
        return held
    params, own_buffers = arrival.vectors
    if not arrival.single:
        buffers.add_sum_(own_buffers, arrival.weight)
        with named_errors(RULE, rule):
            return rule.add_sum(held, arrival.weight, params)
    buffers.add_(own_buffers, arrival.weight)
    arrived += arrival.clients
    client = arrival.clients[0]
    with named_errors(RULE, rule):
        if type(rule).add.__module__.partition(".")[0] == "fedtlu_fast":
            return rule.add(held, client, arrival.weight, params)
        # A copy, because a rule may keep the vector, whose memory the next client uses again.
        with seeded_for(rule, seed, f"{RULE}.add", round_index, client):
            return rule.add(held, client, arrival.weight, params.clone())
