"""First step of a round under `client_selection`: clients probe, if the rule asks for it, and get orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.block_metrics import unit_norms
from fedtlu_fast.client_steps import ClientSteps, recycling
from fedtlu_fast.client_steps.orders import Orders
from fedtlu_fast.config import RunConfig
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.part_memory import ClientMemory, Memory, PartMemory, Value, recall, remember
from fedtlu_fast.simulation.client_rule import ClientRule
from fedtlu_fast.simulation.executors.executor import Executor
from fedtlu_fast.simulation.executors.lanes import ClientReports, cut
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.stats import layer_stats

Vector = NDArray[np.float64]
PROBES = "Probes"
"""Under which name the clients' probes are remembered: of each client the round and its gains [B]."""


@dataclass(frozen=True)
class ClientChoice:
    """What was found out and decided before a cohort trains.

    Attributes:
        orders: of those that train; None: everybody trains and sends everything.
        gains: [C, B], what those who train measured, in the order of the cohort; None without probes.
        probed: those that probed in this round.
        failed: those whose probe failed, and why; they get no orders.
        memory: what all parts remember after the choice.
    """

    orders: Orders | None = None
    gains: Vector | None = None
    probed: tuple[int, ...] = ()
    failed: dict[int, str] = field(default_factory=dict)
    memory: Memory = field(default_factory=dict)

    def ordered(self, cohort: Sequence[int]) -> list[int]:
        """Those of a cohort that train."""
        return [client for client in cohort if client not in self.failed]


def choose_for_clients(
    rule: ClientRule,
    config: RunConfig,
    layout: ParameterLayout,
    executor: Executor,
    steps: ClientSteps,
    state: ServerState,
    cohort: Sequence[int],
) -> ClientChoice:
    """Orders for a cohort.

    Args:
        rule: the settings'.
        config: of the run.
        layout: of its model.
        executor: has clients probe.
        steps: what clients do around training.
        state: what they start from.
        cohort: who trains; not empty.
    """
    index = state.round + 1
    if not config.client_selection.probes:
        metrics = {}
        if rule.selector.metric == "relative_change":
            metrics = {"relative_change": _last_movement(layout, state, config.backend)}
        return ClientChoice(rule.orders(index, cohort, metrics), memory=state.memory)
    every, held = config.client_selection.probe_every, recall(state.memory, PROBES).clients
    rounds, gains = held.get("round", {}), dict(held.get("gains", {}))
    known = [client for client in gains if index - float(rounds[client]) < every]
    asked = [client for client in cohort if client not in known]
    reports = _probe(config, executor, steps, state, asked) if asked else ClientReports()
    fresh = {client: _probe_of(index, own) for client, own in reports.gains.items()}
    there = [client for client in cohort if client in known or client in fresh]
    measured = np.array([reports.gains.get(client, gains.get(client)) for client in there])
    kept = {client: _probe_of(rounds[client], gains[client]) for client in known} | fresh
    probes = PartMemory().with_clients(kept if every > 1 else {})
    return ClientChoice(
        orders=rule.orders(index, there, {rule.selector.metric or "": measured}) if there else Orders({}),
        gains=measured,
        probed=tuple(fresh),
        failed=reports.failed,
        memory=remember(state.memory, PROBES, probes),
    )


def _probe_of(round_index: Value, gains: Value) -> ClientMemory:
    return {"round": round_index, "gains": gains}


def _probe(
    config: RunConfig, executor: Executor, steps: ClientSteps, state: ServerState, clients: Sequence[int]
) -> ClientReports:
    reports = ClientReports()
    lanes = cut(
        state.round + 1,
        clients,
        config.execution.lanes,
        config.execution.at_once or 1,
        probing=True,
        memory={client: steps.memories(state.memory, client) for client in clients},
        told=steps.told(state.memory),
    )
    for result in executor.train((state.params, state.buffers), lanes):
        reports.extend(result.reports)
    return reports


def _last_movement(layout: ParameterLayout, state: ServerState, backend: str) -> Vector:
    """[1, B]: ``||dW|| / ||W||`` of the round before; 0 where there is none."""
    last = recall(state.memory, recycling.PART).server.get(recycling.CHANGE)
    if last is None:
        return np.zeros((1, len(layout.blocks)))
    first = len(layout.layers)
    moved = unit_norms(layer_stats(last, layout, backend=backend), layout)[first:]
    size = unit_norms(layer_stats(state.params, layout, backend=backend), layout)[first:]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = moved.numpy() / size.numpy()
    return np.where(np.isfinite(found), found, 0.0)[None, :]
