"""Defines client selectors that use the clients' gradients, measured before training (arXiv 2408.15600)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part
from fedtlu_fast.registry import find
from fedtlu_fast.selection.agreement import choose_layers, most_agreement, normalise
from fedtlu_fast.selection.evidence import Evidence, Mask
from fedtlu_fast.selection.room import ClientRoom, Room, within
from fedtlu_fast.selection.selector import Ranking, Selector

Floats = NDArray[np.float64]


def _known(value: Any) -> Any:
    if isinstance(value, str):
        find("client_metric", value, "metric")
    return value


ClientMetric = Annotated[str, BeforeValidator(_known)]
"""The name of a metric of `gradient_metrics`, or the dotted name of a function."""
Batches = Annotated[int, Field(ge=1)]
Rounds = Annotated[int, Field(ge=1)]


@part
class GradNorm(Ranking):
    """Chooses each client's blocks with the largest gradients.

    Attributes:
        probe_batches: batches over which a client averages the gradient that it measures.
        probe_every: rounds after which a client measures its gradient again.
    """

    probe_batches: Batches = 1
    probe_every: Rounds = 1
    needs = ("gradnorm",)


@part
class RelativeGradNorm(Ranking):
    """Chooses each client's blocks with the largest gradients relative to their parameters.

    Attributes:
        probe_batches: batches over which a client averages the gradient that it measures.
        probe_every: rounds after which a client measures its gradient again.
    """

    probe_batches: Batches = 1
    probe_every: Rounds = 1
    needs = ("rgn",)


@part
class SignalToNoise(Ranking):
    """Chooses each client's blocks with the largest signal-to-noise ratio of the gradient.

    Attributes:
        probe_batches: batches over which a client averages the gradient that it measures.
        probe_every: rounds after which a client measures its gradient again.
    """

    probe_batches: Batches = 1
    probe_every: Rounds = 1
    needs = ("snr",)


@part
class Strategic(Selector):
    """Chooses blocks with large gradients on which clients agree: the solution of P1 (arXiv 2408.15600).

    Attributes:
        metric: a client's gain from a layer: gradnorm (the paper's) | rgn | snr | package.module:function.
        lam: weight lambda of agreement, in units of the round's mean gain (ours); 0: clients choose alone.
        probe_batches: batches over which a client averages the gradient that it measures.
        probe_every: rounds after which a client measures its gradient again.
    """

    metric: ClientMetric = "gradnorm"
    lam: Annotated[float, Field(ge=0)] = 0.1
    probe_batches: Batches = 1
    probe_every: Rounds = 1

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns the metric's name."""
        return (self.metric,)

    @property
    def needs_others(self) -> str | None:
        """Returns a reason if clients have to agree."""
        return "lam > 0, because a client alone cannot agree with others" if self.lam > 0 else None

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Solves P1 by `choose_layers`.

        A client chooses nothing, and other clients need not agree with it, if one of its gains is not finite
        (its change would be refused) or if no block fits its budget.

        Raises:
            InputError: The room is the server's, which has no budgets.
        """

        def solve(gains: Floats, budgets: Floats, costs: Floats, reach: Floats) -> Mask:
            return choose_layers(gains, budgets, self.lam, costs=costs, reach=reach).mask

        return _together("strategic", evidence, self.metric, room, solve)


@part
class Agreeing(Selector):
    """Chooses by P1 with the largest lambda that keeps a share of what clients' own choices are worth (ours).

    Attributes:
        kept: the share of the gains of their own best blocks above those of random blocks that clients keep
            together at least; with 1 they agree only where it costs nothing.
        metric: a client's gain from a layer: gradnorm (the paper's) | rgn | snr | package.module:function.
        probe_batches: batches over which a client averages the gradient that it measures.
        probe_every: rounds after which a client measures its gradient again.
    """

    kept: Annotated[float, Field(ge=0, le=1)] = 0.9
    metric: ClientMetric = "gradnorm"
    probe_batches: Batches = 1
    probe_every: Rounds = 1
    needs_others = "a selector by which each client chooses alone, since this one lets clients agree"

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns the metric's name."""
        return (self.metric,)

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Chooses by `most_agreement`; who chooses nothing is as with `Strategic`.

        Raises:
            InputError: The room is the server's, which has no budgets.
        """

        def solve(gains: Floats, budgets: Floats, costs: Floats, reach: Floats) -> Mask:
            return most_agreement(gains, budgets, self.kept, costs=costs, reach=reach).mask

        return _together("agreeing", evidence, self.metric, room, solve)


def _together(
    name: str,
    evidence: Evidence,
    metric: str,
    room: Room,
    solve: Callable[[Floats, Floats, Floats, Floats], Mask],
) -> Mask:
    """Chooses [R, B] for all clients whose gains are finite and whose budgets fit some block.

    Args:
        name: of the selector.
        evidence: what it looks at.
        metric: the name of the gains there.
        room: the clients'.
        solve: gets gains by their mean, budgets, costs and reach of these clients and of the open blocks.

    Raises:
        InputError: The room is the server's.
    """
    if not isinstance(room, ClientRoom):
        raise InputError("selector", name, "a selector for the server; P1 needs clients' budgets")
    gains, blocks = evidence.metrics[metric][:, room.open], np.flatnonzero(room.open)
    costs, reach = room.costs[blocks], room.reach[blocks]
    least = (costs + reach).min(initial=np.inf)
    able = np.isfinite(gains).all(axis=1) & within(np.array(least), room.budgets)
    mask = np.zeros((evidence.rows, len(room.open)), np.bool_)
    if able.any():
        mask[np.ix_(able, blocks)] = solve(normalise(gains[able]), room.budgets[able], costs, reach)
    return mask
