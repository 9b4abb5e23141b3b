"""Builds the server of a run, which holds what all rounds share."""

from __future__ import annotations

from fedtlu_fast.aggregation import check_room
from fedtlu_fast.build.client_rule import make_client_rule
from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Population
from fedtlu_fast.executors.executor import Executor
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring.block_metrics import scored_layout
from fedtlu_fast.selection import ServerRoom, quotas
from fedtlu_fast.simulation.client_choice import ClientChooser
from fedtlu_fast.simulation.server import Server


def make_server(
    config: RunConfig,
    layout: ParameterLayout,
    population: Population,
    trainer: LocalTrainer,
    executor: Executor,
    steps: ClientSteps,
) -> Server:
    """Builds the server from the settings and the other parts of a run.

    Raises:
        InputError: `keep` or `scored_layers` does not fit the model's groups, a robust rule has too little
            memory, or the data or the trace do not fit `participation`.
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
