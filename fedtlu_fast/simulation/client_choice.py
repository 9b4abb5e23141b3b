"""First step of a round under `client_selection`: clients probe, if the rule asks for it, and get orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.client_steps import ClientSteps, recycling
from fedtlu_fast.client_steps.orders import Orders
from fedtlu_fast.executors.executor import Executor
from fedtlu_fast.executors.lanes import ClientReports, cut
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.part_memory import ClientMemory, Memory, PartMemory, Value, recall, remember
from fedtlu_fast.scoring import layer_stats
from fedtlu_fast.scoring.units import unit_norms
from fedtlu_fast.selection import Selector
from fedtlu_fast.selection.selector import LAST_CHANGE
from fedtlu_fast.simulation.client_rule import ClientRule
from fedtlu_fast.simulation.earlier import CHOSEN, SELECTION, earlier_metrics
from fedtlu_fast.simulation.state import ServerState

Vector = NDArray[np.float64]
PROBES = "Probes"
"""Under which name the clients' probes are remembered: of each client the round and its gains [M B]."""


@dataclass(frozen=True)
class ClientChoice:
    """What was found out and decided before a cohort trains.

    Attributes:
        orders: of those that train; None: everybody trains and sends everything.
        gains: [C, B], what the clients that train measured, in the order of the cohort, by the first metric
            that they probe; None without probes.
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


@dataclass(frozen=True)
class ClientChooser:
    """Gives every client of a cohort its orders, after a probe where the selector goes by gradients.

    Attributes:
        rule: makes the orders.
        executor: has clients probe.
        steps: what clients do around training.
        lanes: how many partial sums a round has.
        clients_per_batch: how many clients are trained in one call.
        backend: runs the kernels.
        reported: whether clients send what they measured; they do not where each chooses for itself.
    """

    rule: ClientRule
    executor: Executor
    steps: ClientSteps
    lanes: int = 64
    clients_per_batch: int = 1
    backend: str = "auto"
    reported: bool = True

    @property
    def probe_batches(self) -> int:
        """Batches by which a client measures its blocks; 0 where the selector asks for no probes."""
        selector = self.rule.selector
        return selector.probe_batches if selector.probes else 0

    def choose(self, state: ServerState, cohort: Sequence[int]) -> ClientChoice:
        """Orders for a cohort.

        Args:
            state: what the clients start from.
            cohort: the clients that are to train; empty only if all clients of a round get one choice.
        """
        index, rule, selector = state.round + 1, self.rule, self.rule.selector
        metrics = _shared(selector, rule.layout, state, self.backend)
        applied = recall(state.memory, SELECTION).server.get(CHOSEN)
        last = None if applied is None else tuple(applied.nonzero().flatten().tolist())
        if not selector.probes:
            orders = rule.orders(index, cohort, metrics, state.params, last)
            return ClientChoice(orders, memory=state.memory)
        held = recall(state.memory, PROBES).clients
        rounds, gains = held.get("round", {}), held.get("gains", {})
        known = {client for client in gains if index - float(rounds[client]) < selector.probe_every}
        asked = [client for client in cohort if client not in known]
        reports = self._probe(state, asked) if asked else ClientReports()
        fresh = {client: _probe_of(index, own) for client, own in reports.gains.items()}
        there = [client for client in cohort if client in known or client in fresh]
        measured = np.array([reports.gains.get(client, gains.get(client)) for client in there])
        kept = {client: _probe_of(rounds[client], gains[client]) for client in known} | fresh
        probes = PartMemory().with_clients(kept if selector.probe_every > 1 else {})
        each: dict[str, Vector] = {}
        if there:
            # [C, M B], the metrics one after another.
            parts = np.split(measured, len(selector.probes), axis=1)
            each = dict(zip(selector.probes, parts, strict=True))
        return ClientChoice(
            orders=rule.orders(index, there, metrics | each, state.params, last) if there else Orders({}),
            gains=each.get(selector.probes[0], measured),
            probed=tuple(fresh),
            failed=reports.failed,
            memory=remember(state.memory, PROBES, probes),
        )

    def _probe(self, state: ServerState, clients: Sequence[int]) -> ClientReports:
        reports = ClientReports()
        lanes = cut(
            state.round + 1,
            clients,
            self.lanes,
            self.clients_per_batch,
            probing=True,
            memory=self.steps.of_clients(state.memory, clients),
            broadcast=self.steps.broadcast(state.memory),
        )
        for result in self.executor.train((state.params, state.buffers), lanes):
            reports.extend(result.reports)
        return reports


def _probe_of(round_index: Value, gains: Value) -> ClientMemory:
    return {"round": round_index, "gains": gains}


def _shared(
    selector: Selector, layout: ParameterLayout, state: ServerState, backend: str
) -> dict[str, Vector]:
    """The metrics that are the same for all clients."""
    found = earlier_metrics(selector, state.memory, len(layout.blocks))
    if LAST_CHANGE in selector.needs:
        found[LAST_CHANGE] = _last_movement(layout, state, backend)
    return found


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
