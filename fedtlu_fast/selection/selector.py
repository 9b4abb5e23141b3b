"""Defines the interface of selectors, for the server (one choice) and for clients (one choice each).

To write your own, subclass `Selector`; or subclass `Ranking` if the best blocks by some utility are kept; or
write a function ``(change) -> scores [B]`` (see `FunctionSelector`).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.parts import make, part
from fedtlu_fast.registry import find
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.scoring.block_metrics import FACTS, Change, asked_by, block_vector, missing_fact
from fedtlu_fast.scoring.gradient_metrics import needs_held_out
from fedtlu_fast.scoring.units import ScoredLayers
from fedtlu_fast.selection.evidence import Evidence, Mask, Vector
from fedtlu_fast.selection.room import Room
from fedtlu_fast.selection.told import check_told

Moment = Literal["before_training", "after_training", "by_change"]

LAST_CHANGE = "relative_change"
"""The need of client selectors for ``||dW|| / ||W||`` of the round before, the same for all clients."""
EARLIER, LAST_SENT = "earlier_scores", "last_sent"
"""The needs of client selectors that choose by earlier aggregated changes: the score of each block in the
last round in which it was sent, NaN before, and the number of that round, 0 before; both [1, B]."""
SHARED = (LAST_CHANGE, EARLIER, LAST_SENT)
"""Numbers that are the same for all clients, and that no client measures."""


class Selector(ABC):
    """Chooses blocks; the base of all selectors.

    Attributes:
        moment: when the selector chooses for clients. ``before_training``: clients train only the chosen
            blocks. ``after_training``: clients train all blocks and send the chosen ones. ``by_change``: the
            same, but the choice depends on each client's own change. On the server this makes no difference.
        budgeted: whether the choice keeps budgets (clients) or quotas (server). If not, the selector may
            choose any blocks of `Room.whole`.
        same_for_all: whether all clients get the same choice.
        recycles: whether a block that no client sent changes again as in the round before.
        ddof: the kind of standard deviation in the metrics that the selector needs; see `score_layers`.
        pooling: how these metrics combine the values of a block's layers; see `block_metrics.ratios`.
        scored_layers: the layers that these metrics use; see `scored_layout`.
        probe_batches: batches over which a client averages the gradient that it measures.
        probe_every: rounds after which a client measures its gradient again.
    """

    moment: ClassVar[Moment] = "before_training"
    budgeted: ClassVar[bool] = True
    same_for_all: ClassVar[bool] = False
    recycles: ClassVar[bool] = False
    ddof: Literal[0, 1] = 1
    pooling: Pooling = "mean"
    scored_layers: ScoredLayers = "all"
    probe_batches: int = 1
    probe_every: int = 1

    @property
    def needs(self) -> tuple[str, ...]:
        """Names the numbers that the selector needs; a subclass may set ``needs = ("agreement",)``.

        A server selector may name metrics (``excess``, ``l2_per_parameter``, ``relative_change``,
        ``agreement``, or package.module:function), which arrive in `Evidence.metrics`, and the facts
        ``client_stats``, ``client_values`` and ``client_norms``. A client selector may name ``gradnorm``,
        ``rgn``, ``snr`` or a function's dotted name, which clients measure on their gradients before
        training, or, at the moment ``by_change``, on their own change; at the moment ``by_change`` also
        ``drift``, ``benefit`` and ``held_out``, losses on samples that the client keeps back
        (`Change.held_out`); ``relative_change`` of the round before, [1, B]; and ``earlier_scores`` and
        ``last_sent`` (see `Earlier`; they are scores by the selector's attribute `metric`, or else by Eq. 1).
        """
        return ()

    @property
    def needs_others(self) -> str | None:
        """Returns why a client cannot choose without the numbers of other clients; None if it can."""
        return None

    @abstractmethod
    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Chooses blocks.

        Args:
            evidence: the numbers that the selector may look at.
            room: the blocks that it may choose.

        Returns:
            [R, B] bool, one row per choice; R is ``evidence.rows``.
        """

    def check_layout(self, layout: ParameterLayout) -> None:  # noqa: B027
        """Refuses a model that the selector of a server cannot choose from; by default it refuses none.

        It is called before the first round, so that a wrong parameter costs no training.

        Args:
            layout: the model's blocks and groups.

        Raises:
            InputError: The layout and a parameter do not fit; its field is the parameter's name.
        """

    def remembers(self, evidence: Evidence, applied: Mask) -> Mapping[str, Tensor]:
        """Returns what the selector wants to know in the next targeted round; by default nothing.

        Only the server's selector is asked, after the step of each targeted round: not in warm-up rounds,
        since the arms of a comparison share a warm-up that another selector ran, and not in a round from
        which no change arrived. What it returns replaces `Evidence.memory`, and is saved and resumed with the
        run; what is to stay has to be returned again. A selector that defines this method is refused on
        clients and in `choose`, which have no memory.

        Args:
            evidence: what `choose` saw, without the parameters, which the step may have changed.
            applied: [B] bool, the blocks that were applied, unique ones included. A chosen block is not among
                them if its change, or its new values, were not finite.

        Returns:
            Tensors by name, of any shape; they are copied to the CPU.
        """
        return {}

    @property
    def has_memory(self) -> bool:
        """Whether the selector defines `remembers`."""
        return type(self).remembers is not Selector.remembers

    @property
    def aggregate_only(self) -> bool:
        """Whether a server that sees nothing but the aggregated change can use the selector.

        It cannot if the selector, or a metric of it, asks for facts about single clients (which secure
        aggregation hides) or for samples that the server holds.

        Raises:
            InputError: The selector needs a metric that the server does not have.
        """
        return not self.asked()

    def asked(self, field: str = "selector") -> frozenset[str]:
        """Returns the facts (`block_metrics.FACTS`) that a server selector needs beside the aggregate.

        Raises:
            InputError: The selector needs a metric that the server does not have.
        """
        return asked_by(self._named_needs(field), field)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Returns the metrics among the needs.

        Raises:
            InputError: `needs` is no collection of names.
        """
        return tuple(name for name in self._named_needs() if name not in FACTS)

    def _named_needs(self, field: str = "selector") -> tuple[str, ...]:
        needs: Any = self.needs
        if isinstance(needs, list | tuple | set | frozenset) and all(isinstance(one, str) for one in needs):
            return tuple(needs)
        fix = f"Write needs = ({needs!r},), with the comma." if isinstance(needs, str) else ""
        raise InputError(field, f"{type(self).__name__}.needs = {needs!r}", "a tuple of names", fix)

    @property
    def ranks_by(self) -> str:
        """Returns the metric that a run logs as the blocks' scores: the first needed one, else Eq. 1."""
        return next(iter(self.metrics), "excess")

    @property
    def own_metrics(self) -> tuple[str, ...]:
        """Returns the metrics among the needs that are computed from each client's own vectors."""
        return tuple(name for name in self.metrics if name not in SHARED)

    @property
    def needs_samples(self) -> bool:
        """Whether clients have to look at samples that they keep back (`evaluation.local_held_out`).

        Raises:
            InputError: The selector needs a metric that clients do not have.
        """
        return "held_out" in self._named_needs() or needs_held_out(self.own_metrics)

    @property
    def probes(self) -> tuple[str, ...]:
        """Returns the metrics that clients measure before they train."""
        return () if self.moment == "by_change" else self.own_metrics


class Ranking(Selector):
    """Keeps the best blocks by a utility, which a subclass defines."""

    def utility(self, evidence: Evidence) -> Any:
        """Returns the utility of each block, larger is better; by default the first needed metric.

        Returns:
            [R, B], or [B] if R is 1: an array, a tensor or a list.
        """
        return evidence.metrics[self.metrics[0]]

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Chooses the best blocks, as many as there is room for.

        Raises:
            InputError: `utility` returns no numbers of this shape.
        """
        return room.best(_utilities(type(self).__name__, self.utility(evidence), evidence))


def _utilities(name: str, found: Any, evidence: Evidence) -> Vector:
    """Returns the result of a ranking's `utility` as [R, B] float64."""
    rows, blocks = evidence.rows, len(evidence.layout.blocks)
    expected = f"{name}.utility to return shape ({rows}, {blocks})"
    try:
        own = found.detach().cpu().numpy() if isinstance(found, Tensor) else found
        values: Vector = np.asarray(own, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("selector", type(found).__name__, f"{expected}; {cause(error)}") from error
    if values.shape == (blocks,) and rows == 1:
        values = values[None, :]
    if values.shape != (rows, blocks):
        raise InputError("selector", values.shape, f"{expected}, a number for each choice and block")
    return values


@part
class FunctionSelector(Selector):
    """Keeps the best blocks by the scores that a function returns.

    On the server the function gets the aggregated change. On clients it gets each client's own change after
    training, and the client sends the best blocks.

    Attributes:
        function: ``(change) -> scores [B]``, larger is better; see `block_metrics.Change`. The decorator
            `block_metrics.asks` lets the function see facts about single clients.
    """

    function: Callable[[Change], Any]
    moment = "by_change"

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns the facts that the function asks for."""
        marked = self.function.func if isinstance(self.function, partial) else self.function
        return tuple(getattr(marked, "asks", ()))

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Chooses the best blocks by the function's scores.

        Raises:
            InputError: Clients have not trained yet, or the function does not return scores that tell blocks
                apart (`check_told`).
        """
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        if evidence.change is None:
            raise InputError("selector", name, "a change to score, but clients have not trained yet")
        try:
            scores = self.function(evidence.change)
        except Exception as error:
            expected = f"a function of a Change; it raised {cause(error)}"
            fix = missing_fact(self.function, evidence.change, error)
            raise InputError("selector", name, expected, fix) from error
        found = block_vector("selector", name, scores, evidence.layout).numpy()[None, :]
        check_told("selector", name, found, evidence, room)
        return room.best(found)


def as_selector(given: str | Selector | Callable[[Change], Any]) -> Selector:
    """Returns the selector that a name, a dotted name, a function or a selector itself stands for.

    Raises:
        InputError: There is no such selector.
    """
    found: Any = find("selector", given, "selector") if isinstance(given, str) else given
    if inspect.isclass(found):
        found = make(found, {})
    if isinstance(found, Selector):
        return found
    if not callable(found):
        expected = "a name, a function of a Change, or an object of a subclass of Selector"
        raise InputError("selector", type(found).__name__, expected)
    return FunctionSelector(found)
