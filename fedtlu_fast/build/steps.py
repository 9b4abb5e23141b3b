"""Builds the client steps of a run from the settings."""

from __future__ import annotations

from fedtlu_fast.build.client_rule import make_client_rule, standing_of
from fedtlu_fast.client_steps import ClientStep, ClientSteps, RunFacts
from fedtlu_fast.client_steps.personal import Personal, PersonalPart
from fedtlu_fast.client_steps.recycling import Recycle
from fedtlu_fast.client_steps.sending import SendChosen
from fedtlu_fast.client_steps.step import compresses
from fedtlu_fast.clients.optimizer import Sgd
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.private_fits import drawn
from fedtlu_fast.data.population import Population
from fedtlu_fast.simulation.client_rule import ClientRule
from fedtlu_fast.simulation.own_sample import OwnSamples


def make_steps(
    config: RunConfig,
    trainer: LocalTrainer,
    population: Population,
    tokens: int = 0,
    labels: int = 0,
) -> ClientSteps:
    """Builds the steps in order: personal blocks, algorithms, threats, partial sending, compression or masks.

    With differential privacy, compression comes before clipping, since it may make a change longer, and both
    come before threats, since hostile clients do not keep to the clipping.

    Args:
        config: the settings of the run, with the noise of differential privacy (`with_noise`).
        trainer: the trainer of single clients, with the task and the layout of the model.
        population: the data of all clients, on the device of the model.
        tokens: the number of tokens in the vocabulary; see `RunFacts`.
        labels: the number of labels; see `RunFacts`.

    Raises:
        InputError: A threat does not fit the data, or the settings name blocks that the model does not have.
    """
    chosen, layout = config.client_selection, trainer.layout
    steps: list[ClientStep] = []
    if chosen.keeps:
        steps.append(Personal(PersonalPart(layout, standing_of(config, layout).personal), chosen.alternate))
    # Algorithms come before threats: they learn from a client's true update, not from the one that it fakes.
    given = [own.step for own in config.client_steps]
    steps += [step for step in given if not compresses(step)]
    compression = [step for step in given if compresses(step)]
    if config.privacy.on:
        steps += [*compression, config.privacy.mean(config.cohort)]
        compression = []
    steps += [own.step for own in config.threats]
    if chosen.chooses:
        by_change = chosen.selector.moment == "by_change"
        steps.append(SendChosen(_rule_after_training(config, trainer, population) if by_change else None))
    if chosen.selector.recycles:
        steps.append(Recycle(standing_of(config, layout).open))
    # Compression comes last: it acts on what is sent, also by malicious clients, and on nothing else.
    steps += compression
    if config.privacy.secure_aggregation:
        steps.append(config.privacy.masked(drawn(config), config.cohort))
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


def _rule_after_training(config: RunConfig, trainer: LocalTrainer, population: Population) -> ClientRule:
    """Builds the rule by which clients choose what they send, with the samples that they look at."""
    samples, given = None, config.evaluation
    if config.client_selection.selector.needs_samples:
        samples = OwnSamples(trainer, population, given.local_held_out, given.batch_size)
    return make_client_rule(config, trainer.layout, trainer.task, population, samples)
