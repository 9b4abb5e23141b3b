"""What the rounds of one run share, made of its settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedtlu_fast.aggregation import AggregationRule, ServerOptimizer
from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Population
from fedtlu_fast.executors.executor import Executor
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.participation import Turnout
from fedtlu_fast.selection import Selector, ServerRoom, Ungrouped
from fedtlu_fast.simulation.client_choice import ClientChooser
from fedtlu_fast.simulation.client_rule import ClientRule
from fedtlu_fast.simulation.state import ServerState


@dataclass(frozen=True)
class Server:
    """What the rounds of one run share.

    Attributes:
        config: the run's settings, for its tests and its logs; rounds do not read them.
        layout: of the model.
        population: says what each client holds, on the model's device.
        trainer: of single clients; holds the task and its model.
        executor: trains cohorts.
        participation: draws the cohorts.
        steps: what clients do around training.
        chooser: says which blocks each client trains and sends; None: all of them.
        rule: aggregates the clients' changes.
        scored: the layout with the layers that make the blocks' scores.
        selector: chooses blocks.
        room: blocks to keep in each group.
        ungrouped: what becomes of blocks outside of all groups.
        optimizer: makes the server's step of the aggregated change.
        server_lr: factor on that step.
        warmup_rounds: first rounds that apply every block.
        size: of a cohort.
        lanes: partial sums of a round.
        clients_per_batch: clients that are trained in one call.
        seed: of the run.
        backend: runs the kernels.
    """

    config: RunConfig
    layout: ParameterLayout
    population: Population
    trainer: LocalTrainer
    executor: Executor
    participation: Turnout
    steps: ClientSteps
    chooser: ClientChooser | None
    rule: AggregationRule
    scored: ParameterLayout
    selector: Selector
    room: ServerRoom
    ungrouped: Ungrouped
    optimizer: ServerOptimizer
    server_lr: float
    warmup_rounds: int
    size: int
    lanes: int
    clients_per_batch: int
    seed: int
    backend: str

    @property
    def client_rule(self) -> ClientRule | None:
        """Which blocks are open, frozen and personal; None where clients train and send everything."""
        return None if self.chooser is None else self.chooser.rule

    @property
    def one_by_one(self) -> bool:
        """Whether the server has to see every client's vector on its own."""
        return not self.rule.takes_sums or self.steps.needs_each


def initial_state(layout: ParameterLayout, model: torch.nn.Module) -> ServerState:
    """The state before the first round: the model as it is."""
    return ServerState(0, layout.flatten(model), layout.flatten_buffers(model))
