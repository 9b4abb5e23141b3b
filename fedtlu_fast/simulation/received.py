"""Facts about single clients are those of what the server aggregates, which client steps there may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from fedtlu_fast.client_steps.step import Arrival
from fedtlu_fast.executors.lanes import ClientReports
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring import layer_stats
from fedtlu_fast.scoring.client_values import read_at
from fedtlu_fast.scoring.units import unit_norms


def as_received(
    own: ClientReports,
    arrival: Arrival,
    base: Tensor,
    scored: ParameterLayout,
    backend: str,
    places: Callable[[], Tensor],
) -> ClientReports:
    """Returns one client's reports, with their facts measured on what is aggregated in place of its own.

    Malicious clients that act together (`a_little_is_enough`) train honestly, and the server's half of their
    step puts what they send in place of it. What is measured where clients train is then not what they send.

    Args:
        own: the reports of one client, whose facts are those of the change that it trained.
        arrival: the vectors that are aggregated, of that client alone.
        base: [P], the global parameters.
        scored: the layout with the layers that make the blocks' scores.
        backend: which backend runs the kernels.
        places: draws the places of the round's `client_values`; called if there are any.
    """
    found, client = own, arrival.clients[0]
    if own.norms is not None or own.stats:
        stats = layer_stats(arrival.vectors[0] - base, scored, backend=backend).cpu()
        norms = None if own.norms is None else arrival.weight * unit_norms(stats, scored).numpy()
        found = replace(own, norms=norms, stats={})
        if own.stats:
            found.add_stats(client, stats)
    if own.values:
        found = replace(found, values={client: read_at(places(), arrival.vectors[0], base).numpy()})
    return found
