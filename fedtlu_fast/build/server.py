"""Builds the server of a run, which holds what all rounds share."""

from __future__ import annotations

import numpy as np

from fedtlu_fast.aggregation import check_room
from fedtlu_fast.build.client_rule import make_client_rule
from fedtlu_fast.build.recorded import recorded_scores
from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.kept_back import spread
from fedtlu_fast.data.population import Pool, Population, Samples, count
from fedtlu_fast.errors import InputError
from fedtlu_fast.executors.executor import Executor
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring.units import scored_layout
from fedtlu_fast.selection import server_room
from fedtlu_fast.simulation.client_choice import ClientChooser
from fedtlu_fast.simulation.server import EvaluationPlan, Names, Server


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
        InputError: `keep`, `scored_layers` or the selector does not fit the groups, a robust rule has too
            little memory, or the data or the trace do not fit `participation`.
    """
    check_room(config.aggregation.rule, layout.size, config.cohort)
    chosen, execution = config.selection, config.execution
    selector = chosen.selector
    chooser = None
    if config.client_selection.chooses:
        chooser = ClientChooser(
            rule=make_client_rule(config, layout, trainer.task, population),
            executor=executor,
            steps=steps,
            lanes=execution.lanes,
            clients_per_batch=execution.clients_per_batch or 1,
            backend=config.backend,
            reported=config.client_selection.decides == "server",
        )
    return Server(
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
        keep=chosen.keep if selector.budgeted else None,
        room=server_room(selector, layout, chosen.keep),
        unique=chosen.unique,
        optimizer=config.aggregation.server_optimizer,
        server_lr=config.server_lr,
        rounds=config.rounds,
        warmup_rounds=config.warmup_rounds,
        size=config.cohort,
        lanes=execution.lanes,
        clients_per_batch=execution.clients_per_batch or 1,
        seed=config.seed,
        backend=config.backend,
        evaluation=_evaluation(config, population),
        names=_names(config),
    )


def _evaluation(config: RunConfig, population: Population) -> EvaluationPlan:
    given = config.evaluation
    test, held_out = apart(population.test, given.held_out)
    return EvaluationPlan(
        every=given.every,
        local_every=given.local_every,
        local_clients=min(given.local_clients or config.clients, config.clients),
        trained_clients=min(given.trained_clients, config.clients),
        batch_size=given.batch_size,
        client_errors=config.execution.client_errors,
        flops=config.measures_costs,
        test=test,
        held_out=held_out,
        recorded=recorded_scores(config),
        local_held_out=given.local_held_out,
    )


def apart(test: Pool, wanted: int) -> tuple[Pool, Pool | None]:
    """Splits the global test into what is reported and the samples that the server may look at.

    Args:
        test: the global test.
        wanted: number of samples for the server, spread evenly over the test; 0: none.

    Raises:
        InputError: nothing would be left to report.
    """
    if not wanted:
        return test, None
    size = count(test)
    if wanted >= size:
        expected = f"fewer than the {size} samples of the global test, from which they are taken"
        raise InputError("evaluation.held_out", wanted, expected)
    own = spread(size, wanted)
    rest = np.setdiff1d(np.arange(size), own)
    return Samples(test, rest).alone(), Samples(test, own).alone()


def _names(config: RunConfig) -> Names:
    chosen = config.client_selection
    return Names(
        task=config.task,
        source=str(config.data.source),
        own=config.own is not None,
        selector=config.selection.name_of("selector"),
        client_selector=chosen.name_of("selector"),
        client_budget=chosen.budget.model_dump(mode="json") if chosen.selector.budgeted else None,
    )
