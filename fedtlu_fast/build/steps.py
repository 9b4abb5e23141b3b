"""Builds the client steps of a run from the settings."""

from __future__ import annotations

from fedtlu_fast.build.client_rule import make_client_rule, standing_of
from fedtlu_fast.client_steps import ClientStep, ClientSteps, RunFacts
from fedtlu_fast.client_steps.personal import Personal, PersonalPart
from fedtlu_fast.client_steps.recycling import Recycle
from fedtlu_fast.client_steps.sending import SendChosen
from fedtlu_fast.clients.optimizer import Sgd
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Population
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.tasks.task import Task


def make_steps(
    config: RunConfig,
    layout: ParameterLayout,
    task: Task,
    population: Population,
    tokens: int = 0,
    labels: int = 0,
) -> ClientSteps:
    """Builds the steps in order: personal blocks, algorithms, threats, partial sending.

    Args:
        config: the settings of the run.
        layout: the layout of the model.
        task: the model and its loss.
        population: the data of all clients.
        tokens: the number of tokens in the vocabulary; see `RunFacts`.
        labels: the number of labels; see `RunFacts`.

    Raises:
        InputError: A threat does not fit the data, or the settings name blocks that the model does not have.
    """
    chosen = config.client_selection
    steps: list[ClientStep] = []
    if chosen.keeps:
        steps.append(Personal(PersonalPart(layout, standing_of(config, layout).personal), chosen.alternate))
    # Algorithms come before threats: they learn from a client's true update, not from the one that it fakes.
    steps += [own.step for own in (*config.client_steps, *config.threats)]
    if chosen.chooses:
        by_change = chosen.selector.moment == "by_change"
        steps.append(SendChosen(make_client_rule(config, layout, task, population) if by_change else None))
    if chosen.selector.recycles:
        steps.append(Recycle(standing_of(config, layout).open))
    optimizer = config.training.optimizer
    sgd = optimizer if isinstance(optimizer, Sgd) else None
    facts = RunFacts(
        layout,
        config.seed,
        config.clients,
        sgd.lr if sgd is not None else 0.0,
        sgd.momentum if sgd is not None else 0.0,
        config.training.proximal_mu,
        tokens,
        labels,
        config.backend,
    )
    return ClientSteps(steps, facts)
