"""What a run is made of: the clients' data and the trainer of their model, as the settings describe them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from torch import nn

from fedtlu_fast.build.data import load_federation
from fedtlu_fast.build.steps import make_steps
from fedtlu_fast.build.task import build_task
from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.ahead import AheadPopulation
from fedtlu_fast.data.population import ArrayPopulation, Population, Samples, on_device
from fedtlu_fast.data.splits import Origin
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.models.pretrained_place import locate
from fedtlu_fast.randomness import ALONE
from fedtlu_fast.simulation.pretraining import pretrain_
from fedtlu_fast.tasks.builder import builder_of
from fedtlu_fast.tasks.supervised import fitted


@dataclass(frozen=True)
class Parts:
    """Made alike on every machine that takes part.

    Attributes:
        population: who holds what, on the settings' device.
        trainer: of single clients; holds model and layout.
        steps: what clients do around training.
        origin: of the data; see `FederatedData`.
    """

    population: Population
    trainer: LocalTrainer
    steps: ClientSteps
    origin: Origin | None = None


def layout_of(config: RunConfig, model: nn.Module) -> ParameterLayout:
    """The layout of a run's model.

    Raises:
        InputError: a pattern of `selection.blocks` does not fit the model.
    """
    chosen = config.selection
    try:
        return ParameterLayout.from_module(model, chosen.granularity, blocks=chosen.blocks)
    except InputError as error:
        raise error.of(f"selection.{error.field}") if error.field == "blocks" else error from None


def make_parts(config: RunConfig, *, start: bool = True) -> Parts:
    """Opens the data and builds the model.

    Args:
        config: of the run.
        start: whether the model gets its pre-trained start; a remote worker is sent one.

    Raises:
        InputError: data, model and settings do not fit together.
    """
    if config.task == "own":
        return _own_parts(config)
    if config.model.pretrained is not None:
        locate(config.model.pretrained)  # a wrong path is found before the data cost any time
    data = load_federation(config)
    # One start for runs of every seed needs the same weights to begin from.
    seed = config.seed if data.public is None else config.pretraining.seed
    with ALONE:  # libraries that load weights change what belongs to the whole process, and change it back
        task = build_task(config, data, seed)
    layout = layout_of(config, task.model)
    if start and data.public is not None:
        pool = on_device(data.public.pool, config.device)
        given = config.pretraining
        settings = json.dumps(given.model_dump(mode="json"), sort_keys=True)
        known = f"{config.task}/{config.threads}/{settings}"
        pretrain_(given.local, given.seed, task, layout, Samples(pool, data.public.rows), known)
    how = config.execution
    trainer = LocalTrainer(task, layout, config.training.local, config.seed, how.compile, how.precision)
    population: Population = data.population
    if config.device == "cpu" or type(population) is ArrayPopulation:
        population = population.to(config.device)
    else:
        # Files, and samples made when they are asked for, may be more than the device has room for.
        population = AheadPopulation(population, config.device)
    labelled = "label_noise" in builder_of(config.task).noises
    tokens, labels = (data.vocabulary, data.outputs) if labelled else (data.outputs, 0)
    steps = make_steps(config, layout, task, population, tokens, labels)
    return Parts(population, trainer, steps, data.origin)


def _own_parts(config: RunConfig) -> Parts:
    """What a `Federation` brought.

    Raises:
        InputError: the settings were read from a file, which has no objects in it.
    """
    if config.own is None:
        expected = "a task that settings can describe; this one was given to a Federation in Python"
        fix = "Go on in Python: Federation(...).resume(DIRECTORY), with the same objects."
        raise InputError("task", config.task, expected, fix)
    task, population = fitted(config.own.task, config.own.data)
    task.model.to(config.device)
    how = config.execution
    layout = layout_of(config, task.model)
    trainer = LocalTrainer(task, layout, config.training.local, config.seed, how.compile, how.precision)
    steps = make_steps(config, layout, task, population)
    return Parts(population.to(config.device), trainer, steps)
