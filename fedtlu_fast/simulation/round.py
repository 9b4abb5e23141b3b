"""One round: clients (who train what their orders say) -> aggregate -> score -> select -> apply.

The only module that sees all five stages. State goes in and comes out; nothing given is changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from fedtlu_fast.aggregation import (
    BuffersMean,
    ServerOptimizer,
    Start,
    check_room,
)
from fedtlu_fast.block_metrics import BlockValues, scored_layout
from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Population
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.part_memory import PartMemory, recall, remember
from fedtlu_fast.randomness import generator
from fedtlu_fast.scoring import LayerScores
from fedtlu_fast.selection import Full, Selection, Selector, ServerRoom, quotas, select, selection_of
from fedtlu_fast.simulation.apply import Applied, apply, left_out
from fedtlu_fast.simulation.client_choice import CHOSEN, SELECTION, ClientChoice, choose_for_clients
from fedtlu_fast.simulation.client_rule import ClientRule, make_client_rule
from fedtlu_fast.simulation.clock import StageClock
from fedtlu_fast.simulation.cohort import weight_limit
from fedtlu_fast.simulation.executors.executor import Executor
from fedtlu_fast.simulation.executors.lanes import ClientReports, Lane, cut
from fedtlu_fast.simulation.gather import gather
from fedtlu_fast.simulation.measured import measure_round
from fedtlu_fast.simulation.participation import Turnout
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.stats import LayerStats

OPTIMIZER = "ServerOptimizer"
"""Under which name the server optimizer's vectors are remembered."""


@dataclass(frozen=True)
class Server:
    """What the rounds of one run share.

    Attributes:
        config: the run's settings.
        layout: of the model.
        scored: the same with the layers that make the blocks' scores.
        population: who holds what, on the model's device.
        trainer: of single clients; holds the task and its model.
        executor: trains cohorts.
        participation: draws them.
        optimizer: makes the server's step of the aggregated change.
        selector: chooses blocks.
        room: blocks to keep in each group.
        steps: what clients do around training.
        client_rule: says which blocks each client trains; None: everybody trains everything.
    """

    config: RunConfig
    layout: ParameterLayout
    scored: ParameterLayout
    population: Population
    trainer: LocalTrainer
    executor: Executor
    participation: Turnout
    optimizer: ServerOptimizer
    selector: Selector
    room: ServerRoom
    steps: ClientSteps
    client_rule: ClientRule | None = None


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
    warmup: bool
    seconds: dict[str, float] = field(default_factory=dict)


def make_server(
    config: RunConfig,
    layout: ParameterLayout,
    population: Population,
    trainer: LocalTrainer,
    executor: Executor,
    steps: ClientSteps,
) -> Server:
    """Collects what rounds need; settings that do not fit the model are refused here.

    Raises:
        InputError: `keep` or `scored_layers` does not fit the model's groups, a robust rule has no room, or
            the data or the trace do not serve for `participation`.
    """
    check_room(config.aggregation.rule, layout.size, config.cohort)
    chosen = config.selection
    selector = chosen.selector
    kept = quotas(layout, chosen.keep) if selector.budgeted else (0,) * len(layout.groups)
    return Server(
        config=config,
        layout=layout,
        scored=scored_layout(layout, selector.scored_layers),
        population=population,
        trainer=trainer,
        executor=executor,
        participation=config.participation.value.begin(
            config.seed, config.clients, config.cohort, config.rounds, population
        ),
        optimizer=config.aggregation.server_optimizer,
        selector=selector,
        room=ServerRoom(layout, kept),
        steps=steps,
        client_rule=make_client_rule(config, layout, trainer.task, population)
        if config.client_selection.chooses
        else None,
    )


def run_round(server: Server, state: ServerState) -> tuple[ServerState, RoundRecord]:
    """The round after `state`. When nobody takes part, or the rule keeps no client, it changes and publishes
    nothing.
    """
    config, index = server.config, state.round + 1
    clock, warmup = StageClock(), state.round < config.warmup_rounds
    participants = server.participation.draw(index, state.memory)

    with clock("probe"):
        choice = _client_choice(server, state, participants.cohort, warmup)
    cohort = choice.ordered(participants.cohort)

    way = server.steps.server((state.params, state.buffers), index, cohort, state.memory)
    gathered = gather(
        server.layout,
        server.executor,
        config.aggregation.rule,
        Start(state.params, config.cohort, config.backend, server.layout, index),
        BuffersMean(state.buffers, config.cohort, config.aggregation.rule.chooses, config.backend),
        way,
        (state.params, state.buffers),
        _lanes(server, state, cohort, choice),
        clock,
        choice.orders is not None,
    )
    aggregated, reports = gathered.aggregated, gathered.reports
    change, nobody = aggregated.change, aggregated.empty

    with clock("score"):
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
            backend=config.backend,
        )
        stats = measured.change.stats

    with clock("select"):
        evidence = measured.evidence(generator(config.seed, "selection", index), config.warmup_rounds)
        selection = (
            selection_of(server.layout, ())
            if nobody
            else select(
                Full() if warmup else server.selector,
                evidence,
                server.room,
                config.selection.ungrouped,
                stats.nonfinite,
                list(aggregated.unsent),
            )
        )

    with clock("apply"):
        # Nobody's change is no change of zero, of which momentum would make a step.
        moments = recall(state.memory, OPTIMIZER)
        applied = Applied(state.params, moments.server, selection)
        if not nobody:
            applied = apply(
                state.params,
                change,
                selection,
                server.layout,
                server.optimizer,
                moments.server,
                config.server_lr,
                config.backend,
            )
        buffers = state.buffers if nobody else state.buffers + aggregated.buffers_change

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
        warmup=warmup,
        seconds=clock.seconds,
    )
    outcomes = zip(reports.clients, reports.losses, reports.accepted, strict=True)
    memory = server.participation.learnt(choice.memory, outcomes)
    memory = way.remembered(memory, reports.memory)
    memory = remember(memory, OPTIMIZER, moments.with_server(applied.optimizer))
    memory = remember(memory, SELECTION, PartMemory({CHOSEN: applied.selection.chosen(server.layout)}))
    return replace(state, round=index, params=applied.params, buffers=buffers, memory=memory), record


def _lanes(server: Server, state: ServerState, cohort: list[int], choice: ClientChoice) -> list[Lane]:
    """The cohort, cut for the executor, with what each client needs to know."""
    config = server.config
    if not cohort:
        return []
    one_by_one = not config.aggregation.rule.takes_sums or server.steps.needs_each
    return cut(
        state.round + 1,
        cohort,
        len(cohort) if one_by_one else config.execution.lanes,
        1 if one_by_one else config.execution.at_once or 1,
        choice.orders,
        memory={client: server.steps.memories(state.memory, client) for client in cohort},
        told=server.steps.told(state.memory),
        largest=weight_limit(server.population, cohort, config.aggregation.rule.max_share),
    )


def _client_choice(server: Server, state: ServerState, cohort: list[int], warmup: bool) -> ClientChoice:
    """Who trains what; in the warm-up, everybody everything."""
    if server.client_rule is None or warmup or not cohort:
        return ClientChoice(memory=state.memory)
    return choose_for_clients(
        server.client_rule, server.config, server.layout, server.executor, server.steps, state, cohort
    )


def initial_state(layout: ParameterLayout, model: torch.nn.Module) -> ServerState:
    """The state before the first round: the model as it is."""
    return ServerState(0, layout.flatten(model), layout.flatten_buffers(model))
