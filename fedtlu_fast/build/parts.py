"""Builds the parts of a run that every machine needs: the clients' data, model, trainer and steps."""

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
    """Holds the parts that are built in the same way on every machine that takes part in a run.

    Attributes:
        population: the data of all clients, on the device of the settings.
        trainer: the trainer of single clients, which holds the model and its layout.
        steps: the client steps.
        origin: the origin of the data; see `FederatedData`.
    """

    population: Population
    trainer: LocalTrainer
    steps: ClientSteps
    origin: Origin | None = None


def layout_of(config: RunConfig, model: nn.Module) -> ParameterLayout:
    """Returns the layout of a run's model.

    Raises:
        InputError: A pattern of `selection.blocks` does not fit the model.
    """
    chosen = config.selection
    try:
        return ParameterLayout.from_module(model, chosen.granularity, blocks=chosen.blocks)
    except InputError as error:
        raise error.of(f"selection.{error.field}") if error.field == "blocks" else error from None


def make_parts(config: RunConfig, *, start: bool = True) -> Parts:
    """Opens the data and builds the model.

    Args:
        config: the settings of the run.
        start: whether to pre-train the model as `pretraining` says; a remote worker does not, because it
            receives the parameters.

    Raises:
        InputError: Data, model and settings do not fit together.
    """
    if config.task == "own":
        return _own_parts(config)
    if config.model.pretrained is not None:
        locate(config.model.pretrained)  # a wrong path should fail before the data are read
    data = load_federation(config)
    # With pre-training, runs of every seed start from the same initial weights.
    seed = config.seed if data.public is None else config.pretraining.seed
    with ALONE:  # libraries that load weights change process-wide settings for a while
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
        # Data in files, or made on demand, may exceed the memory of the device.
        population = AheadPopulation(population, config.device)
    labelled = "label_noise" in builder_of(config.task).noises
    tokens, labels = (data.vocabulary, data.outputs) if labelled else (data.outputs, 0)
    steps = make_steps(config, trainer, population, tokens, labels)
    return Parts(population, trainer, steps, data.origin)


def _own_parts(config: RunConfig) -> Parts:
    """Builds the parts from the objects of a `Federation`.

    Raises:
        InputError: The settings were read from a file, which does not contain the objects.
    """
    if config.own is None:
        expected = "a task that settings can describe, but this one was given to a Federation in Python"
        fix = "Resume it in Python with the same objects: Federation(...).resume(DIRECTORY)."
        raise InputError("task", config.task, expected, fix)
    task, population = fitted(config.own.task, config.own.data)
    task.model.to(config.device)
    how = config.execution
    layout = layout_of(config, task.model)
    trainer = LocalTrainer(task, layout, config.training.local, config.seed, how.compile, how.precision)
    population = population.to(config.device)
    return Parts(population, trainer, make_steps(config, trainer, population))
