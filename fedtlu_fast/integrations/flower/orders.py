"""Which arrays each client of a Flower federation trains and sends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedtlu_fast.errors import InputError
from fedtlu_fast.integrations.global_model import GlobalModel
from fedtlu_fast.parts import by_name
from fedtlu_fast.selection import FunctionSelector, Selector
from fedtlu_fast.selection.budgets import Budget, Equal
from fedtlu_fast.selection.calls import check_forgets
from fedtlu_fast.selection.standing import standing
from fedtlu_fast.simulation.client_rule import ClientRule


class LayerOrders:
    """Chooses blocks for clients before they train, by a client selector and a budget."""

    def __init__(self, selector: str | Selector, budget: int | Budget, seed: int) -> None:
        """Checks the parts.

        Args:
            selector: a client selector or its name.
            budget: how many blocks each client trains, or a budget in layers or parameters.
            seed: of all draws.

        Raises:
            InputError: the selector needs numbers that clients would have to send before, or chooses after
                the training; or the budget counts FLOPs, which are not known here.
        """
        made = by_name("client_selector", FunctionSelector)(selector)
        if made.moment != "before_training" or made.needs:
            expected = "a client selector that chooses before the training and needs nothing from the clients"
            raise InputError("client_selection", type(made).__name__, expected, "Use random, top or both.")
        check_forgets(made, type(made).__name__, "client_selection")
        self._selector, self._seed = made, seed
        self._budget = budget if isinstance(budget, Budget) else Equal(budget)
        if self._budget.unit == "flops":
            raise InputError("budget", "unit=flops", "unit=layers or unit=parameters")
        self._rule: ClientRule | None = None

    def of(self, model: GlobalModel, round_index: int, clients: Sequence[int]) -> dict[int, list[str]]:
        """Returns the names of the arrays that each client trains and sends.

        Args:
            model: the global model.
            round_index: 1 for the first.
            clients: their numbers.
        """
        layout = model.layout
        if self._rule is None:
            ones = np.ones(len(layout.blocks))
            layers = self._budget.unit == "layers"
            self._rule = ClientRule(
                layout,
                standing(layout, frozen="none", always="auto", fine_tuning=False),
                self._selector,
                self._budget,
                ones if layers else np.array(layout.block_sizes()) / layout.size,
                np.zeros(len(layout.blocks)),
                seed=self._seed,
            )
        last = None if model.last_choice is None else tuple(model.last_choice.nonzero().flatten().tolist())
        orders = self._rule.orders(round_index, clients, {}, model.params, last)
        return {client: model.names_of(orders.trained[client]) for client in clients}
