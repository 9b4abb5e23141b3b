"""What the server knows of a round's change before it chooses: the metrics that its selector needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.executors.lanes import ClientReports
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring import LayerStats, layer_stats, score_layers
from fedtlu_fast.scoring.block_metrics import BlockValues, Change, asked_by, measure
from fedtlu_fast.scoring.client_values import ClientValues
from fedtlu_fast.scoring.held_out import HeldOut
from fedtlu_fast.scoring.units import mean_client_norms
from fedtlu_fast.selection import Evidence, Selector


@dataclass(frozen=True)
class Measured:
    """A round's change, measured.

    Attributes:
        change: with its statistics.
        values: of each metric that the selector needs, and of the one that is written down.
        metric: the one that is written down; see `Selector.ranks_by`.
    """

    change: Change
    values: Mapping[str, BlockValues]
    metric: str

    @property
    def written(self) -> BlockValues:
        """The values that are written down."""
        return self.values[self.metric]

    def evidence(
        self, generator: np.random.Generator, warmup_rounds: int, memory: Mapping[str, Tensor]
    ) -> Evidence:
        """What the selector sees.

        Args:
            generator: the round's source of chance.
            warmup_rounds: of the run.
            memory: what the selector remembers, on any device.
        """
        change = self.change
        return Evidence(
            layout=change.layout,
            metrics={name: found.blocks.numpy()[None, :] for name, found in self.values.items()},
            generator=generator,
            round=change.round,
            change=change,
            parameters=change.parameters,
            last_choice=change.last_choice,
            warmup_rounds=warmup_rounds,
            memory={name: tensor.cpu() for name, tensor in memory.items()},
        )


def measure_round(
    selector: Selector,
    layout: ParameterLayout,
    scored: ParameterLayout,
    change: Tensor,
    parameters: Tensor,
    reports: ClientReports,
    totals: NDArray[np.float64] | None,
    *,
    round_index: int,
    last_choice: Tensor | None,
    backend: str,
    held_out: HeldOut | None = None,
    recorded: Collection[str] = (),
) -> Measured:
    """Measures a round's aggregated change.

    Args:
        selector: says what it needs.
        layout: of the model.
        scored: the same with the layers that make the blocks' scores.
        change: [P], aggregated.
        parameters: [P], before it.
        reports: of the clients.
        totals: [B], weights of the clients that sent each block; None where everybody sent everything.
        round_index: from 1.
        last_choice: [B] bool, the blocks that were applied in the round before; None before round 2.
        backend: which backend runs the kernels.
        held_out: losses on the server's own sample; None: it has none.
        recorded: further metrics whose facts the change is to have.
    """
    stats, asked = layer_stats(change, layout, backend=backend).cpu(), selector.asked()
    asked |= asked_by(tuple(recorded))
    singly = bool({"client_stats", "client_values"} & asked)
    norms = None
    if "client_norms" in asked:
        weights = reports.total if totals is None else _of_units(layout, totals)
        norms = mean_client_norms(reports.norms, weights, scored)
    found = Change(
        layout=layout,
        stats=stats,
        scores=score_layers(stats, selector.ddof),
        parameters=parameters,
        scored=scored,
        pooling=selector.pooling,
        round=round_index,
        last_choice=None if last_choice is None else last_choice.cpu().numpy(),
        client_norms=norms,
        client_stats=_client_stats(reports, layout) if "client_stats" in asked else None,
        client_values=_client_values(reports, layout) if "client_values" in asked else None,
        client_weights=_client_weights(reports) if singly else None,
        client_sent=None if totals is None or not singly else _client_sent(reports, layout),
        held_out=held_out,
        backend=backend,
        vector=change,
    )
    wanted = dict.fromkeys((selector.ranks_by, *selector.metrics))
    return Measured(found, {name: measure(name, found) for name in wanted}, selector.ranks_by)


def _client_stats(reports: ClientReports, layout: ParameterLayout) -> LayerStats:
    """[K, L], of the accepted clients."""
    rows = [reports.stats[client] for client in reports.averaged]
    # count, mean, std, l2, abs_max, nonfinite
    table = torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, 6, len(layout.layers)).double()
    return LayerStats(layout.names, *table.unbind(dim=1))


def _client_values(reports: ClientReports, layout: ParameterLayout) -> ClientValues:
    """Of the accepted clients."""
    rows = [reports.values[client] for client in reports.averaged]
    found = torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, 0)
    return ClientValues.of(found, layout)


def _client_weights(reports: ClientReports) -> Tensor:
    """[K]."""
    pairs = zip(reports.weights, reports.accepted, strict=True)
    return torch.tensor([float(weight) for weight, accepted in pairs if accepted], dtype=torch.float64)


def _client_sent(reports: ClientReports, layout: ParameterLayout) -> Tensor:
    """[K, B] bool."""
    sent = torch.zeros(len(reports.averaged), len(layout.blocks), dtype=torch.bool)
    for row, client in enumerate(reports.averaged):
        sent[row, list(reports.sent[client])] = True
    return sent


def _of_units(layout: ParameterLayout, totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """[L + B], from the blocks' [B]."""
    layers = np.empty(len(layout.layers))
    for block, total in zip(layout.blocks, totals, strict=True):
        layers[list(block.layers)] = total
    return np.concatenate([layers, totals])
