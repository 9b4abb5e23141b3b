"""One round of FedTLU: clients -> aggregate -> score -> select -> apply.

The only module that sees all five stages. State goes in and comes out; nothing given is changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedtlu_fast.aggregation import WeightedMean, check_room, make_rule
from fedtlu_fast.block_metrics import BlockValues, mean_client_norms, measure, root_counts, unit_norms
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Population
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.ops.dispatch import masked_apply_
from fedtlu_fast.randomness import generator
from fedtlu_fast.scoring import LayerScores, score_layers
from fedtlu_fast.selection import Evidence, Selection, Selector, make_selector, quotas, select
from fedtlu_fast.simulation.cohort import sample_cohort
from fedtlu_fast.simulation.executors.executor import Executor
from fedtlu_fast.simulation.executors.lanes import ClientReports, cut
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.stats import LayerStats, layer_stats


@dataclass(frozen=True)
class Server:
    """What the rounds of one run share.

    Attributes:
        config: the run's settings.
        layout: of the model.
        population: who holds what, on the model's device.
        trainer: of single clients; holds the task and its model.
        executor: trains cohorts.
        selector: chooses blocks.
        quotas: blocks to keep in each group.
    """

    config: RunConfig
    layout: ParameterLayout
    population: Population
    trainer: LocalTrainer
    executor: Executor
    selector: Selector
    quotas: tuple[int, ...]


@dataclass
class RoundRecord:
    """What happened in one round.

    Attributes:
        round: 1 for the first.
        cohort: the clients that took part, in the order of averaging.
        refused: those whose change held NaN or Inf and was not averaged in.
        failed: those that could not be trained, and why.
        train_loss: mean of the accepted clients' training losses, weighted like their changes.
        selection: the blocks that were applied.
        stats: statistics of every layer's change.
        scores: Eq. 1 for every layer.
        values: of the settings' metric, for every layer and block.
        warmup: whether every block was applied because targeting had not started.
        seconds: by stage.
    """

    round: int
    cohort: list[int]
    refused: list[int]
    failed: dict[int, str]
    train_loss: float
    selection: Selection
    stats: LayerStats
    scores: LayerScores
    values: BlockValues
    warmup: bool
    seconds: dict[str, float] = field(default_factory=dict)


def make_server(
    config: RunConfig,
    layout: ParameterLayout,
    population: Population,
    trainer: LocalTrainer,
    executor: Executor,
) -> Server:
    """Collects what rounds need; settings that do not fit the model are refused here.

    Raises:
        InputError: `keep` does not fit the model's groups, or a robust rule has no room.
    """
    check_room(config.aggregation, layout.size, config.cohort)
    chosen = config.selection
    needs_groups = chosen.selector != "full"
    return Server(
        config=config,
        layout=layout,
        population=population,
        trainer=trainer,
        executor=executor,
        selector=make_selector(chosen.selector, chosen.metric),
        quotas=quotas(layout, chosen.keep) if needs_groups else (0,) * len(layout.groups),
    )


def run_round(server: Server, state: ServerState) -> tuple[ServerState, RoundRecord]:
    """The round after `state`."""
    config, index = server.config, state.round + 1
    clock = StageClock()
    cohort = sample_cohort(config.seed, index, config.clients, config.cohort)

    params_rule = make_rule(config.aggregation, state.params, len(cohort), config.backend)
    buffers_mean = WeightedMean(state.buffers, config.backend)
    reports = ClientReports()
    lanes = cut(index, cohort, config.execution, one_each=config.aggregation.rule != "mean")
    results = server.executor.train((state.params, state.buffers), lanes)
    while True:
        with clock("train"):
            result = next(results, None)
        if result is None:
            break
        reports.extend(result.reports)
        with clock("aggregate"):
            for rule, vector in zip((params_rule, buffers_mean), result.vectors, strict=True):
                if result.reports.total:
                    add_ = rule.add_ if result.single else rule.add_sum_
                    add_(vector, result.reports.total)
    with clock("aggregate"):
        change = params_rule.change()

    with clock("score"):
        stats = layer_stats(change, server.layout, backend=config.backend).cpu()
        scores = score_layers(stats, config.selection.ddof)
        metric, pooling = config.selection.metric, config.selection.pooling
        values = measure(metric, server.layout, stats, scores, pooling, _scale(server, state, reports))

    warmup = index <= config.warmup_rounds
    with clock("select"):
        evidence = Evidence(
            layout=server.layout,
            metrics={metric: values.blocks.numpy()[None, :]},
            generator=generator(config.seed, "selection", index),
        )
        selector = make_selector("full") if warmup else server.selector
        selection = select(selector, evidence, server.quotas, config.selection.ungrouped, stats.nonfinite)

    with clock("apply"):
        params = state.params.clone()
        masked_apply_(params, change, server.layout.offsets, selection.mask, config.server_lr, config.backend)
        buffers = state.buffers + buffers_mean.change()

    record = RoundRecord(
        round=index,
        cohort=cohort,
        refused=reports.refused,
        failed=reports.failed,
        train_loss=reports.loss,
        selection=selection,
        stats=stats,
        scores=scores,
        values=values,
        warmup=warmup,
        seconds=clock.seconds,
    )
    return ServerState(index, params, buffers), record


def _scale(server: Server, state: ServerState, reports: ClientReports) -> Tensor | None:
    """What the settings' metric sets the norm of a change against."""
    layout, metric = server.layout, server.config.selection.metric
    if metric == "l2_per_parameter":
        return root_counts(layout)
    if metric == "relative_change":
        return unit_norms(layer_stats(state.params, layout, backend=server.config.backend), layout)
    if metric == "agreement":
        return mean_client_norms(reports.norms, reports.total, layout)
    return None


class StageClock:
    """Adds up the seconds spent in each stage; on a GPU a stage is charged for what it waits for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Charges the time inside to `stage`."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def initial_state(layout: ParameterLayout, model: torch.nn.Module) -> ServerState:
    """The state before the first round: the model as it is."""
    return ServerState(0, layout.flatten(model), layout.flatten_buffers(model))
