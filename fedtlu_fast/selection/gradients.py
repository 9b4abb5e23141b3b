"""Selectors that go by the clients' gradients, measured before they train (arXiv 2408.15600)."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part
from fedtlu_fast.registry import find
from fedtlu_fast.selection.agreement import choose_layers, normalise
from fedtlu_fast.selection.evidence import Evidence, Mask
from fedtlu_fast.selection.room import ClientRoom, Room, within
from fedtlu_fast.selection.selector import Ranking, Selector


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
    """Each client's blocks of the largest gradients.

    Attributes:
        probe_batches: batches of a probe's mean gradient.
        probe_every: rounds after which a client probes anew.
    """

    probe_batches: Batches = 1
    probe_every: Rounds = 1
    needs = ("gradnorm",)


@part
class RelativeGradNorm(Ranking):
    """Each client's blocks of the largest gradients for their size.

    Attributes:
        probe_batches: batches of a probe's mean gradient.
        probe_every: rounds after which a client probes anew.
    """

    probe_batches: Batches = 1
    probe_every: Rounds = 1
    needs = ("rgn",)


@part
class SignalToNoise(Ranking):
    """Each client's blocks of the largest signal-to-noise ratio of the gradient.

    Attributes:
        probe_batches: batches of a probe's mean gradient.
        probe_every: rounds after which a client probes anew.
    """

    probe_batches: Batches = 1
    probe_every: Rounds = 1
    needs = ("snr",)


@part
class Strategic(Selector):
    """Large gradients, and agreement between clients: the solution of P1 (arXiv 2408.15600).

    Attributes:
        metric: gains are gradnorm (the paper's) | rgn | snr | package.module:function.
        lam: lambda, in units of the round's mean gain (ours); 0: nobody has to agree.
        probe_batches: batches of a probe's mean gradient.
        probe_every: rounds after which a client probes anew.
    """

    metric: ClientMetric = "gradnorm"
    lam: Annotated[float, Field(ge=0)] = 0.1
    probe_batches: Batches = 1
    probe_every: Rounds = 1

    @property
    def needs(self) -> tuple[str, ...]:
        """Its metric."""
        return (self.metric,)

    @property
    def needs_others(self) -> str | None:
        """Agreement is with others."""
        return "lam > 0: nobody alone can agree with others" if self.lam > 0 else None

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """See `choose_layers`.

        A client that can train nothing chooses nothing, and nobody has to agree with it: one with a gain that
        is no number (its change would be refused), and one whose budget no block fits.

        Raises:
            InputError: the room is the server's, which has no budgets.
        """
        if not isinstance(room, ClientRoom):
            raise InputError("selector", "strategic", "a selector for the server; P1 needs clients' budgets")
        gains, blocks = evidence.metrics[self.metric][:, room.open], np.flatnonzero(room.open)
        costs, reach = room.costs[blocks], room.reach[blocks]
        least = (costs + reach).min(initial=np.inf)
        able = np.isfinite(gains).all(axis=1) & within(np.array(least), room.budgets)
        mask = np.zeros((evidence.rows, len(room.open)), np.bool_)
        if able.any():
            budgets = room.budgets[able]
            found = choose_layers(normalise(gains[able]), budgets, self.lam, costs=costs, reach=reach)
            mask[np.ix_(able, blocks)] = found.mask
        return mask
