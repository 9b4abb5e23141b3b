"""Which blocks each client trains and sends, on one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.client_steps.orders import Order, Orders
from fedtlu_fast.client_steps.step import ClientContext
from fedtlu_fast.clients.trainer import Blocks, ClientUpdate
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.own_draws import seeded_for
from fedtlu_fast.randomness import generator
from fedtlu_fast.scoring import layer_stats, score_layers
from fedtlu_fast.scoring.block_metrics import Change
from fedtlu_fast.scoring.gradient_metrics import measure_gradients
from fedtlu_fast.scoring.units import scored_layout
from fedtlu_fast.selection import ClientRoom, Evidence, Selector, chosen_by
from fedtlu_fast.selection.budgets import Budget
from fedtlu_fast.selection.standing import Standing
from fedtlu_fast.simulation.own_sample import OwnSamples

Vector = NDArray[np.float64]
SELECTOR = "client_selection.selector"
"""The setting that errors of a selector name."""


class ClientRule:
    """Makes orders.

    Attributes:
        layout: of the model.
        standing: which blocks are open, always trained, frozen, personal.
        selector: chooses among the open ones.
    """

    def __init__(
        self,
        layout: ParameterLayout,
        standing: Standing,
        selector: Selector,
        budget: Budget,
        costs: Vector,
        reach: Vector,
        *,
        seed: int,
        warmup_rounds: int = 0,
        alike: bool = False,
        samples: OwnSamples | None = None,
    ) -> None:
        """Keeps its parts.

        Args:
            layout: of the model.
            standing: of its blocks.
            selector: chooses among the open ones.
            budget: gives each client what it can train.
            costs: [B], what each block takes of a budget.
            reach: [B], see `ClientRoom`.
            seed: of the run.
            warmup_rounds: of the run.
            alike: whether all clients of a round get one choice.
            samples: what clients keep back and look at before they choose; None: they look at none.
        """
        self.layout, self.standing, self.selector = layout, standing, selector
        self._budget, self._seed, self._warmup_rounds = budget, seed, warmup_rounds
        self._open = standing.mask(len(layout.blocks))
        self._costs, self._reach, self._samples = costs, reach, samples
        self.alike = alike

    @property
    def looks(self) -> int:
        """Number of forward passes over its kept-back samples that a client's choice takes.

        Those of a user's own function are not known, and not counted.
        """
        return 1 + len(self.standing.open) if "benefit" in self.selector.own_metrics else 0

    def orders(
        self,
        round_index: int,
        clients: Sequence[int],
        metrics: Mapping[str, Vector],
        parameters: Tensor,
        last: Blocks | None = None,
    ) -> Orders:
        """Which blocks these clients train and send.

        Args:
            round_index: the round that they train in.
            clients: their numbers.
            metrics: by name, [C, B] or [1, B], what the selector has to see before clients train.
            parameters: [P], the global parameters that they start from.
            last: the blocks that were applied in the round before; None before round 2.
        """
        rows = [0] if self.alike else clients  # one choice, whatever the clients, even for none of them
        budgets = self._budget.of(self._seed, rows)
        every = tuple(sorted((*self.standing.open, *self.standing.always)))
        if self.selector.moment == "by_change":
            limits = dict(zip(clients, budgets.tolist(), strict=True))
            always = dict.fromkeys(clients, self.standing.always)
            return Orders(dict.fromkeys(clients, self._with_personal(every)), always, limits, last)
        evidence = Evidence(
            layout=self.layout,
            metrics=metrics,
            generator=generator(self._seed, "client selection", round_index),
            rows=len(rows),
            round=round_index,
            generators=[]
            if self.alike
            else [generator(self._seed, "client blocks", round_index, client) for client in clients],
            parameters=parameters,
            last_choice=self._mask(last),
            warmup_rounds=self._warmup_rounds,
        )
        with seeded_for(self.selector, self._seed, SELECTOR, round_index):
            mask = chosen_by(self.selector, evidence, self._room(budgets), SELECTOR)
        blocks = [self._with_always(row) for row in mask]
        asked = blocks[0] if self.alike else None
        own = dict(zip(clients, blocks * len(clients) if self.alike else blocks, strict=True))
        if self.selector.moment != "before_training":
            return Orders(dict.fromkeys(clients, self._with_personal(every)), own, asked=asked)
        if not self.standing.personal:
            return Orders(own, asked=asked)
        trained = {client: self._with_personal(blocks) for client, blocks in own.items()}
        return Orders(trained, own, asked=asked)

    def after_training(self, client: ClientContext, update: ClientUpdate, order: Order) -> Blocks:
        """The blocks that a client sends under a selector that chooses by the client's own change.

        Args:
            client: whose choice it is.
            update: the result of its training.
            order: its own, with its budget.

        Raises:
            InputError: the selector asks for losses on samples that the client keeps back, and it has none.
        """
        selector, layout, backend = self.selector, self.layout, client.facts.backend
        change = update.params - client.params
        held_out = None if self._samples is None else self._samples.of(client, update, order.sent)
        stats = layer_stats(change, layout, backend=backend).cpu()
        weights = layer_stats(client.params, layout, backend=backend) if selector.own_metrics else stats
        draws = generator(self._seed, "client blocks", client.round, client.number)
        last = self._mask(order.last)
        evidence = Evidence(
            layout=layout,
            metrics={
                name: measure_gradients(name, layout, stats.as_row(), weights, held_out)
                for name in selector.own_metrics
            },
            generator=draws,
            round=client.round,
            generators=[draws],
            change=Change(
                layout=layout,
                stats=stats,
                scores=score_layers(stats, selector.ddof),
                parameters=client.params,
                scored=scored_layout(layout, selector.scored_layers),
                pooling=selector.pooling,
                round=client.round,
                last_choice=last,
                held_out=held_out,
                backend=backend,
                vector=change,
            ),
            parameters=client.params,
            last_choice=last,
            warmup_rounds=self._warmup_rounds,
        )
        room = self._room(np.array([order.budget]))
        with seeded_for(selector, self._seed, SELECTOR, client.round, client.number):
            return self._with_always(chosen_by(selector, evidence, room, SELECTOR)[0])

    def _mask(self, blocks: Blocks | None) -> NDArray[np.bool_] | None:
        if blocks is None:
            return None
        mask = np.zeros(len(self.layout.blocks), np.bool_)
        mask[list(blocks)] = True
        return mask

    def _room(self, budgets: Vector) -> ClientRoom:
        return ClientRoom(self._open, budgets, self._costs, self._reach)

    def _with_always(self, row: NDArray[np.bool_]) -> Blocks:
        return tuple(sorted((*map(int, np.flatnonzero(row)), *self.standing.always)))

    def _with_personal(self, blocks: Blocks) -> Blocks:
        return tuple(sorted((*blocks, *self.standing.personal)))
