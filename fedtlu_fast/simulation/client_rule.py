"""The settings' rule for which blocks each client trains and sends, on one model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.block_metrics import unit_norms
from fedtlu_fast.client_steps.orders import Orders
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Population, example_samples
from fedtlu_fast.flops import measure_costs
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.randomness import generator
from fedtlu_fast.selection import Evidence
from fedtlu_fast.selection.client_selectors import ClientSelector, Room, make_client_selector
from fedtlu_fast.selection.standing import Standing, standing_of
from fedtlu_fast.stats import layer_stats
from fedtlu_fast.tasks.task import Task

Vector = NDArray[np.float64]


def make_client_rule(
    config: RunConfig, layout: ParameterLayout, task: Task, population: Population
) -> ClientRule:
    """The settings' rule.

    Args:
        config: of a run with `client_selection`.
        layout: of its model.
        task: model and loss, to measure FLOPs with where budgets are in FLOPs.
        population: gives a sample for that.

    Raises:
        InputError: blocks are named that the model does not have, or none is left to train.
    """
    unit, blocks = config.client_selection.budget.budget.unit, len(layout.blocks)
    costs, reach = np.ones(blocks), np.zeros(blocks)
    if unit == "parameters":
        costs = np.array(layout.block_sizes()) / layout.size
    elif unit == "flops":
        example = example_samples(population)
        # Two samples: BatchNorm has no statistics of one.
        found = measure_costs(task, layout, example.take(np.arange(2) % len(example)))
        whole = found.backward(np.ones(blocks, np.bool_))
        costs, reach = found.weight / whole, found.reach / whole
    return ClientRule(config, layout, costs, reach)


class ClientRule:
    """Makes orders.

    Attributes:
        layout: of the model.
        standing: which blocks are open, always trained, frozen, personal.
        selector: chooses among the open ones.
    """

    def __init__(self, config: RunConfig, layout: ParameterLayout, costs: Vector, reach: Vector) -> None:
        """Sorts the blocks and makes the selector.

        Args:
            config: of a run with `client_selection`.
            layout: of its model.
            costs: [B], what each block takes of a budget.
            reach: [B], see `Room`.
        """
        chosen = config.client_selection
        self.layout, self._config, self._seed = layout, config, config.seed
        self.standing: Standing = standing_of(config, layout)
        self._open = self.standing.mask(len(layout.blocks))
        self.selector: ClientSelector = make_client_selector(chosen, self._open, config.warmup_rounds)
        self._costs, self._reach = costs, reach

    def orders(self, round_index: int, clients: Sequence[int], metrics: dict[str, Vector]) -> Orders:
        """What these clients are told.

        Args:
            round_index: the round that they train in.
            clients: their numbers.
            metrics: by name, [C, B], what the selector has to see; empty for those that choose when they
                have trained.
        """
        budgets = self._config.client_selection.budget.budget.of(self._seed, clients)
        every = tuple(sorted((*self.standing.open, *self.standing.always)))
        if self.selector.moment == "drift":
            limits = dict(zip(clients, budgets.tolist(), strict=True))
            always = dict.fromkeys(clients, self.standing.always)
            return Orders(dict.fromkeys(clients, self._with_personal(every)), always, limits)
        evidence = Evidence(
            layout=self.layout,
            metrics=metrics,
            generator=generator(self._seed, "client selection", round_index),
            rows=len(clients),
            round=round_index,
            generators=[generator(self._seed, "client blocks", round_index, client) for client in clients],
        )
        mask = self.selector.choose(evidence, self._room(budgets))
        own = {client: self._with_always(row) for client, row in zip(clients, mask, strict=True)}
        if self.selector.moment != "train":
            return Orders(dict.fromkeys(clients, self._with_personal(every)), own)
        if not self.standing.personal:
            return Orders(own)
        return Orders({client: self._with_personal(blocks) for client, blocks in own.items()}, own)

    def after_training(self, change: Tensor, budget: float, backend: str) -> Blocks:
        """What a client sends that chooses by how far its blocks have moved.

        Args:
            change: [P], its own.
            budget: its own.
            backend: who runs the kernels.
        """
        norms = unit_norms(layer_stats(change, self.layout, backend=backend), self.layout)
        drift = norms[len(self.layout.layers) :].numpy()[None, :]
        evidence = Evidence(self.layout, {"drift": drift}, generator(self._seed, "unused"))
        return self._with_always(self.selector.choose(evidence, self._room(np.array([budget])))[0])

    def _room(self, budgets: Vector) -> Room:
        return Room(self._open, budgets, self._costs, self._reach)

    def _with_always(self, row: NDArray[np.bool_]) -> Blocks:
        return tuple(sorted((*map(int, np.flatnonzero(row)), *self.standing.always)))

    def _with_personal(self, blocks: Blocks) -> Blocks:
        return tuple(sorted((*blocks, *self.standing.personal)))
