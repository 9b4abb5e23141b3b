"""Builds the rule that says which blocks each client trains and sends."""

from __future__ import annotations

import numpy as np

from fedtlu_fast.config import RunConfig
from fedtlu_fast.costs.flops import measure_costs
from fedtlu_fast.data.population import Population, example_samples
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.selection.standing import Standing, standing
from fedtlu_fast.simulation.client_rule import ClientRule
from fedtlu_fast.simulation.own_sample import OwnSamples
from fedtlu_fast.tasks.task import Task


def make_client_rule(
    config: RunConfig,
    layout: ParameterLayout,
    task: Task,
    population: Population,
    samples: OwnSamples | None = None,
) -> ClientRule:
    """Builds the rule that the settings describe.

    Args:
        config: the settings of a run with `client_selection`.
        layout: the layout of the run's model.
        task: the model and its loss, which are used to measure FLOPs if budgets are in FLOPs.
        population: the clients' data, which give samples for this measurement.
        samples: see `ClientRule`.

    Raises:
        InputError: The settings name blocks that the model does not have, or leave no block to train.
    """
    unit, blocks = config.client_selection.budget.budget.unit, len(layout.blocks)
    costs, reach = np.ones(blocks), np.zeros(blocks)
    if unit == "parameters":
        costs = np.array(layout.block_sizes()) / layout.size
    elif unit == "flops":
        example = example_samples(population)
        # Two samples, because BatchNorm cannot compute statistics of one.
        found = measure_costs(task, layout, example.take(np.arange(2) % len(example)))
        whole = found.backward(np.ones(blocks, np.bool_))
        costs, reach = found.weight / whole, found.reach / whole
    chosen = config.client_selection
    return ClientRule(
        layout,
        standing_of(config, layout),
        chosen.selector,
        chosen.budget.budget,
        costs,
        reach,
        seed=config.seed,
        warmup_rounds=config.warmup_rounds,
        alike=chosen.alike,
        samples=samples,
    )


def standing_of(config: RunConfig, layout: ParameterLayout) -> Standing:
    """Sorts a layout's blocks by the settings; see `standing`."""
    chosen = config.client_selection
    return standing(
        layout,
        frozen=chosen.frozen,
        always=chosen.always,
        only=chosen.only,
        personal=chosen.personal,
        fine_tuning=config.model.pretrained is not None or config.pretraining.epochs > 0,
    )
