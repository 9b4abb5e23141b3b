"""What the rounds of one run share, made of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from fedtlu_fast.aggregation import AggregationRule, ServerOptimizer
from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.data.kept_back import split_kept_back
from fedtlu_fast.data.population import Pool, Population, Samples
from fedtlu_fast.executors.executor import Executor
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.participation import Turnout
from fedtlu_fast.selection import Selector, ServerRoom, Unique
from fedtlu_fast.selection.quota import Keep
from fedtlu_fast.simulation.benefit import RecordedScore
from fedtlu_fast.simulation.client_choice import ClientChooser
from fedtlu_fast.simulation.client_rule import ClientRule
from fedtlu_fast.simulation.state import ServerState


@dataclass(frozen=True)
class EvaluationPlan:
    """What a run tests, and when.

    Attributes:
        every: the global test is due every so many rounds, and after the last.
        local_every: likewise the local test.
        local_clients: how many clients are in the local test, drawn once for the run.
        trained_clients: how many clients train once more after the last round.
        batch_size: samples in one forward pass.
        client_errors: whether a client whose test fails stops the run, or is left out of the test.
        flops: whether the run measures its FLOPs at its end.
        test: the global test.
        held_out: samples that the server looks at before it chooses; None: it has none.
        recorded: the scores that every round records beside the benefit of each block; empty: it records
            neither.
        local_held_out: the share of what a client keeps back that it looks at before it chooses; the local
            test has the rest.
    """

    every: int
    local_every: int
    local_clients: int
    trained_clients: int
    batch_size: int
    client_errors: Literal["stop", "drop"]
    flops: bool
    test: Pool
    held_out: Pool | None = None
    recorded: tuple[RecordedScore, ...] = ()
    local_held_out: float = 0.0


@dataclass(frozen=True)
class Names:
    """What the settings of a run call its parts.

    Attributes:
        task: what the model learns.
        source: of the data.
        own: whether task and data are objects that a `Federation` was given.
        selector: of the server.
        client_selector: of the clients.
        client_budget: the settings of the clients' budget; None where their selector knows none.
    """

    task: str
    source: str
    own: bool
    selector: str
    client_selector: str
    client_budget: Mapping[str, Any] | None


@dataclass(frozen=True)
class Server:
    """What the rounds of one run share.

    Attributes:
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
        keep: blocks to keep, as the user gave them; None where the selector keeps all.
        room: blocks to keep in each group.
        unique: whether unique blocks are updated in every round or never.
        optimizer: makes the server's step of the aggregated change.
        server_lr: factor on that step.
        rounds: how many the run has, warm-up included.
        warmup_rounds: first rounds that apply every block.
        size: of a cohort.
        lanes: partial sums of a round.
        clients_per_batch: clients that are trained in one call.
        seed: of the run.
        backend: runs the kernels.
        evaluation: what is tested, and when.
        names: what the settings call the parts, for logs and messages.
    """

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
    keep: Keep | None
    room: ServerRoom
    unique: Unique
    optimizer: ServerOptimizer
    server_lr: float
    rounds: int
    warmup_rounds: int
    size: int
    lanes: int
    clients_per_batch: int
    seed: int
    backend: str
    evaluation: EvaluationPlan
    names: Names

    @property
    def client_rule(self) -> ClientRule | None:
        """Which blocks are open, frozen and personal; None where clients train and send everything."""
        return None if self.chooser is None else self.chooser.rule

    @property
    def chooses(self) -> Selector | None:
        """The selector that chooses for clients; None where they train and send everything."""
        return None if self.chooser is None else self.chooser.rule.selector

    def own_test(self, client: int) -> Samples:
        """Returns the samples of a client's local test; may be empty."""
        return split_kept_back(self.population.held_out(client), self.evaluation.local_held_out)[1]

    def looked_at(self, client: int) -> Samples:
        """Returns the kept-back samples that a client may look at before it chooses; may be empty."""
        return split_kept_back(self.population.held_out(client), self.evaluation.local_held_out)[0]

    @property
    def one_by_one(self) -> bool:
        """Whether the server has to see every client's vector on its own."""
        return not self.rule.takes_sums or self.steps.needs_each


def initial_state(layout: ParameterLayout, model: torch.nn.Module) -> ServerState:
    """The state before the first round: the model as it is."""
    return ServerState(0, layout.flatten(model), layout.flatten_buffers(model))
