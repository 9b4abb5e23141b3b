"""What the rounds of one run share, made of its settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedtlu_fast.aggregation import AggregationRule, ServerOptimizer, check_room
from fedtlu_fast.block_metrics import scored_layout
from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Population
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.selection import Selector, ServerRoom, Ungrouped, quotas
from fedtlu_fast.simulation.client_choice import ClientChooser
from fedtlu_fast.simulation.client_rule import ClientRule, make_client_rule
from fedtlu_fast.simulation.executors.executor import Executor
from fedtlu_fast.simulation.participation import Turnout
from fedtlu_fast.simulation.state import ServerState


@dataclass(frozen=True)
class Server:
    """What the rounds of one run share.

    Attributes:
        config: the run's settings, for its tests and its logs; rounds do not read them.
        layout: of the model.
        population: says what each client holds, on the model's device.
        trainer: of single clients; holds the task and its model.
        executor: trains cohorts.
        participation: draws the cohorts.
        steps: what clients do around training.
        chooser: says which blocks each client trains and sends; None: all of them.
        rule: aggregates the clients' changes.
        scored: the layout with the layers that make the blocks' scores.
        selector: chooses blocks.
        room: blocks to keep in each group.
        ungrouped: what becomes of blocks outside of all groups.
        optimizer: makes the server's step of the aggregated change.
        server_lr: factor on that step.
        warmup_rounds: first rounds that apply every block.
        size: of a cohort.
        lanes: partial sums of a round.
        clients_per_batch: clients that are trained in one call.
        seed: of the run.
        backend: runs the kernels.
    """

    config: RunConfig
    layout: ParameterLayout
    population: Population
    trainer: LocalTrainer
    executor: Executor
    participation: Turnout
    steps: ClientSteps
    chooser: ClientChooser | None
    rule: AggregationRule
    scored: ParameterLayout
    selector: Selector
    room: ServerRoom
    ungrouped: Ungrouped
    optimizer: ServerOptimizer
    server_lr: float
    warmup_rounds: int
    size: int
    lanes: int
    clients_per_batch: int
    seed: int
    backend: str

    @property
    def client_rule(self) -> ClientRule | None:
        """Which blocks are open, frozen and personal; None where clients train and send everything."""
        return None if self.chooser is None else self.chooser.rule

    @property
    def one_by_one(self) -> bool:
        """Whether the server has to see every client's vector on its own."""
        return not self.rule.takes_sums or self.steps.needs_each


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
    chosen, execution = config.selection, config.execution
    selector = chosen.selector
    kept = quotas(layout, chosen.keep) if selector.budgeted else (0,) * len(layout.groups)
    chooser = None
    if config.client_selection.chooses:
        chooser = ClientChooser(
            rule=make_client_rule(config, layout, trainer.task, population),
            executor=executor,
            steps=steps,
            lanes=execution.lanes,
            clients_per_batch=execution.clients_per_batch or 1,
            backend=config.backend,
        )
    return Server(
        config=config,
        layout=layout,
        population=population,
        trainer=trainer,
        executor=executor,
        participation=config.participation.value.begin(
            config.seed, config.clients, config.cohort, config.rounds, population
        ),
        steps=steps,
        chooser=chooser,
        rule=config.aggregation.rule,
        scored=scored_layout(layout, selector.scored_layers),
        selector=selector,
        room=ServerRoom(layout, kept),
        ungrouped=chosen.ungrouped,
        optimizer=config.aggregation.server_optimizer,
        server_lr=config.server_lr,
        warmup_rounds=config.warmup_rounds,
        size=config.cohort,
        lanes=execution.lanes,
        clients_per_batch=execution.clients_per_batch or 1,
        seed=config.seed,
        backend=config.backend,
    )


def initial_state(layout: ParameterLayout, model: torch.nn.Module) -> ServerState:
    """The state before the first round: the model as it is."""
    return ServerState(0, layout.flatten(model), layout.flatten_buffers(model))
