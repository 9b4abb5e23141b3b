"""One round: clients train -> aggregate -> score -> select -> apply.

The only module that sees all five stages. State goes in and comes out; nothing given is changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fedtlu_fast.aggregation import BuffersMean, Start
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.executors.lanes import ClientReports, Lane, cut
from fedtlu_fast.own_draws import seeded_for
from fedtlu_fast.part_memory import PartMemory, recall, remember
from fedtlu_fast.randomness import generator
from fedtlu_fast.scoring import LayerScores, LayerStats
from fedtlu_fast.scoring.block_metrics import BlockValues
from fedtlu_fast.selection import Full, Selection, remembered_by, select, selection_of
from fedtlu_fast.simulation.apply import Applied, apply, left_out
from fedtlu_fast.simulation.benefit import Benefit, benefit_of
from fedtlu_fast.simulation.client_choice import ClientChoice
from fedtlu_fast.simulation.clock import StageClock
from fedtlu_fast.simulation.earlier import CHOSEN, SELECTION, with_choice, with_scores
from fedtlu_fast.simulation.gather import gather
from fedtlu_fast.simulation.held_out import held_out_sample
from fedtlu_fast.simulation.measured import measure_round
from fedtlu_fast.simulation.server import Server
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.simulation.weights import weight_limit

OPTIMIZER = "ServerOptimizer"
"""Under which name the server optimizer's vectors are remembered."""
RULE = "AggregationRule"
"""Under which name the aggregation rule's tensors are remembered."""
SELECTOR = "Selector"
"""Under which name the server selector's tensors are remembered."""


@dataclass
class RoundRecord:
    """What happened in one round.

    Attributes:
        round: 1 for the first.
        drawn: the clients that the server drew.
        cohort: those of them that took part, in the order of averaging; may be empty.
        dropped: the others, and why.
        refused: those whose change was not sound (`soundness`) and was not averaged in.
        failed: those that could not be trained, and why.
        kept_clients: those whose changes the aggregate is made of, when the rule chooses among them; empty
            when too few arrived for it to choose. None for a rule that takes all.
        train_loss: mean of the accepted clients' training losses, weighted like their changes.
        selection: the blocks that were applied.
        nonfinite: names of the blocks that could not be applied, since their change or their new values are
            not finite, or too large.
        stats: statistics of every layer's change.
        scores: Eq. 1 for every layer.
        metric: whose values are written down; see `Selector.ranks_by`.
        values: of this metric, for every layer and block.
        client_choice: what was found out and decided before the cohort trained.
        sent: the blocks that each client sent, by its number; empty where everybody sent everything.
        reports: of the clients that trained.
        benefit: by how much each block alone would lower the held-out loss, beside the scores; None unless
            the run records it.
        warmup: whether every block was applied because targeting had not started.
        seconds: by stage.
    """

    round: int
    drawn: list[int]
    cohort: list[int]
    dropped: dict[int, str]
    refused: list[int]
    failed: dict[int, str]
    kept_clients: list[int] | None
    train_loss: float
    selection: Selection
    nonfinite: tuple[str, ...]
    stats: LayerStats
    scores: LayerScores
    metric: str
    values: BlockValues
    client_choice: ClientChoice
    sent: dict[int, Blocks]
    reports: ClientReports
    benefit: Benefit | None
    warmup: bool
    seconds: dict[str, float] = field(default_factory=dict)


def run_round(server: Server, state: ServerState) -> tuple[ServerState, RoundRecord]:
    """The round after `state`. When nobody takes part, or the rule keeps no client, it changes and publishes
    nothing.
    """
    index, clock, warmup = state.round + 1, StageClock(), state.round < server.warmup_rounds
    vectors = state.params, state.buffers
    participants = server.participation.draw(index, state.memory)

    with clock("probe"):
        choice = ClientChoice(memory=state.memory)
        if server.chooser is not None and (participants.cohort or server.chooser.rule.alike) and not warmup:
            choice = server.chooser.choose(state, participants.cohort)
    cohort = choice.ordered(participants.cohort)

    room = max(server.size, len(cohort))  # a sampler may draw cohorts of any size
    server_round = server.steps.on_server(vectors, index, cohort, state.memory, participants.drawn)
    gathered = gather(
        server.layout,
        server.executor,
        server.rule,
        Start(state.params, room, server.backend, server.layout, index, recall(state.memory, RULE).server),
        BuffersMean(state.buffers, room, server.rule.chooses, server.backend),
        server_round,
        vectors,
        _lanes(server, state, cohort, choice),
        clock,
        server.seed,
        server.scored,
        choice.orders is not None,
        None if choice.orders is None else choice.orders.asked,
    )
    aggregated, reports = gathered.aggregated, gathered.reports
    change, nobody = aggregated.change, aggregated.empty

    own, moments = (server.selector, server.seed), recall(state.memory, OPTIMIZER)
    buffers = state.buffers if nobody else state.buffers + aggregated.buffers_change

    def step(selection: Selection) -> Applied:
        with seeded_for(server.optimizer, server.seed, OPTIMIZER, index):
            return apply(
                state.params,
                change,
                selection,
                server.layout,
                server.optimizer,
                moments.server,
                server.server_lr,
                server.backend,
            )

    sample = held_out_sample(server, state, change, buffers, step, aggregated.unsent)
    recorded = {score.metric for score in server.evaluation.recorded}
    with clock("score"), seeded_for(*own, "score", index, metrics={*server.selector.metrics, *recorded}):
        measured = measure_round(
            server.selector,
            server.layout,
            server.scored,
            change,
            state.params,
            reports,
            gathered.totals,
            round_index=index,
            last_choice=recall(state.memory, SELECTION).server.get(CHOSEN),
            backend=server.backend,
            held_out=sample,
            recorded=recorded,
        )
        stats = measured.change.stats
        benefit = None if nobody else benefit_of(measured.change, server.evaluation.recorded)

    with clock("select"), seeded_for(*own, "select", index):
        evidence = measured.evidence(
            generator(server.seed, "selection", index),
            server.warmup_rounds,
            recall(state.memory, SELECTOR).server,
        )
        selection = (
            selection_of(server.layout, ())
            if nobody
            else select(
                Full() if warmup else server.selector,
                evidence,
                server.room,
                server.unique,
                stats.nonfinite,
                list(aggregated.unsent),
            )
        )

    with clock("apply"):
        # Nobody's change is no change of zero, of which momentum would make a step.
        applied = Applied(state.params, moments.server, selection) if nobody else step(selection)

    record = RoundRecord(
        round=index,
        drawn=participants.drawn,
        cohort=participants.cohort,
        dropped=participants.dropped,
        refused=reports.refused,
        failed=choice.failed | reports.failed,
        kept_clients=gathered.kept,
        train_loss=reports.loss,
        selection=applied.selection,
        nonfinite=left_out(server.layout, stats.nonfinite, applied),
        stats=stats,
        scores=measured.change.scores,
        metric=measured.metric,
        values=measured.written,
        client_choice=choice,
        sent=reports.sent,
        reports=reports,
        benefit=benefit,
        warmup=warmup,
        seconds=clock.seconds,
    )
    outcomes = zip(reports.clients, reports.losses, reports.accepted, strict=True)
    memory = server.participation.learnt(choice.memory, outcomes)
    memory = server_round.remembered(memory, reports.memory)
    memory = remember(memory, OPTIMIZER, moments.with_server(applied.optimizer))
    if not nobody:
        memory = remember(memory, RULE, PartMemory(gathered.memory))
    chosen = applied.selection.chosen(server.layout)
    if not nobody and not warmup:
        with clock("select"), seeded_for(*own, "remember", index):
            held = remembered_by(server.selector, evidence, chosen.numpy(), "selection.selector")
        memory = remember(memory, SELECTOR, PartMemory(held))
        memory = with_scores(memory, server.chooses, measured.change, aggregated.unsent)
    memory = with_choice(memory, chosen)
    return replace(state, round=index, params=applied.params, buffers=buffers, memory=memory), record


def _lanes(server: Server, state: ServerState, cohort: list[int], choice: ClientChoice) -> list[Lane]:
    """The cohort, cut for the executor, with what each client needs to know."""
    if not cohort:
        return []
    return cut(
        state.round + 1,
        cohort,
        len(cohort) if server.one_by_one else server.lanes,
        1 if server.one_by_one else server.clients_per_batch,
        choice.orders,
        memory=server.steps.of_clients(state.memory, cohort),
        broadcast=server.steps.broadcast(state.memory),
        largest=weight_limit(server.population, cohort, server.rule.max_share),
    )
