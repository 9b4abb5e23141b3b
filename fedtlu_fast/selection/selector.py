"""The interface of a selector, for the server (one choice) and for clients (one choice each).

To write your own, subclass `Selector`, or `Ranking` if the best blocks by some utility are kept, or give a
function ``(change) -> [B]`` (see `FunctionSelector`).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.parts import make, part
from fedtlu_fast.registry import find
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.scoring.block_metrics import FACTS, Change, ScoredLayers, asked_by, block_vector
from fedtlu_fast.selection.evidence import Evidence, Mask, Vector
from fedtlu_fast.selection.room import Room

Moment = Literal["before_training", "after_training", "by_change"]

LAST_CHANGE = "relative_change"
"""The need of a client selector that is the same for all clients: ``||dW|| / ||W||`` of the round before."""


class Selector(ABC):
    """Chooses blocks.

    Attributes:
        moment: when it chooses for clients. ``before_training``: clients train nothing else.
            ``after_training``: they train everything and send the chosen blocks. ``by_change``: the same, and
            each client chooses by its own change. On the server this makes no difference.
        budgeted: whether it goes by a budget (clients) or by quotas (server). Without, it may choose any
            blocks of `Room.whole`.
        same_for_all: whether all clients get the same choice.
        recycles: whether a block that no client had to send changes as in the round before.
        ddof: which standard deviation Eq. 1 means in the metrics that it needs; see `score_layers`.
        pooling: how they make a block's value of its layers'; see `block_metrics.ratios`.
        scored_layers: of which layers; see `scored_layout`.
        probe_batches: batches of the mean gradient that a client measures for it.
        probe_every: rounds after which a client measures anew.
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
        """What is computed for it; a class attribute ``needs = ("agreement",)`` does in a subclass.

        On the server these are names of metrics (``excess``, ``l2_per_parameter``, ``relative_change``,
        ``agreement``, or package.module:function), which come in `Evidence.metrics`, and ``client_stats`` or
        ``client_norms``. For clients they are ``gradnorm``, ``rgn``, ``snr`` or a function's dotted name,
        which clients measure before they train; ``drift`` (or any of these) of the client's own change at the
        moment ``by_change``; and ``relative_change``, of the round before, [1, B].
        """
        return ()

    @property
    def needs_others(self) -> str | None:
        """Why a client cannot choose without the numbers of others; None: it can."""
        return None

    @abstractmethod
    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """The choice.

        Args:
            evidence: what it may look at.
            room: what may be chosen.

        Returns:
            [R, B] bool, a row for each choice to make; R is ``evidence.rows``.
        """

    def asked(self, field: str = "selector") -> frozenset[str]:
        """On the server: which facts about single clients (`block_metrics.FACTS`) it needs.

        Raises:
            InputError: it needs a metric that does not exist there.
        """
        return asked_by(tuple(self.needs), field)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics among its needs."""
        return tuple(name for name in self.needs if name not in FACTS)

    @property
    def ranks_by(self) -> str:
        """The metric whose values a run writes down as the blocks' scores: its first; without any, Eq. 1."""
        return next(iter(self.metrics), "excess")

    @property
    def own_metrics(self) -> tuple[str, ...]:
        """For clients: the metrics of each client's own vectors among its needs."""
        return tuple(name for name in self.metrics if name != LAST_CHANGE)

    @property
    def probes(self) -> tuple[str, ...]:
        """The metrics that clients measure for it before they train."""
        return () if self.moment == "by_change" else self.own_metrics


class Ranking(Selector):
    """Base of selectors that keep the best blocks by a utility of their own."""

    def utility(self, evidence: Evidence) -> Vector:
        """[R, B]: larger is better; unless a subclass says otherwise, the first metric that it needs."""
        return evidence.metrics[self.metrics[0]]

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """The best blocks, as many as there is room for."""
        return room.best(self.utility(evidence))


@part
class FunctionSelector(Selector):
    """Keeps the best blocks by a score that is a function.

    On the server the function sees the aggregated change. For clients it sees each client's own change after
    training, and chooses the blocks that the client sends.

    Attributes:
        function: ``(change) -> [B]``, larger is better; see `block_metrics.Change`. `block_metrics.asks`
            marks one that wants facts about single clients.
    """

    function: Callable[[Change], Any]
    moment = "by_change"

    @property
    def needs(self) -> tuple[str, ...]:
        """The facts that the function asks for."""
        return tuple(getattr(self.function, "asks", ()))

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """The best by the function's scores."""
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        if evidence.change is None:
            raise InputError("selector", name, "a change to score; clients have not trained yet")
        try:
            scores = self.function(evidence.change)
        except Exception as error:
            raise InputError("selector", name, f"a function of a Change; {cause(error)}") from error
        found = block_vector("selector", name, scores, evidence.layout).numpy()[None, :]
        if np.isnan(found).all():
            raise InputError("selector", name, "a score that is a number for some block; all are NaN")
        return room.best(found)


def as_selector(given: str | Selector | Callable[[Change], Any]) -> Selector:
    """The selector that a name, a dotted name, a score or a selector itself stands for.

    Raises:
        InputError: there is no such selector.
    """
    found: Any = find("selector", given, "selector") if isinstance(given, str) else given
    if inspect.isclass(found):
        found = make(found, {})
    if inspect.isfunction(found):
        return FunctionSelector(found)
    if not isinstance(found, Selector):
        expected = "a name, a function of a Change, or an object of a subclass of Selector"
        raise InputError("selector", type(found).__name__, expected)
    return found


def chosen_by(selector: Selector, evidence: Evidence, room: Room) -> Mask:
    """[R, B]: the selector's choice, checked.

    Raises:
        InputError: it is no mask of this shape, or holds blocks that may not be chosen.
    """
    name, shape = type(selector).__name__, (evidence.rows, len(evidence.layout.blocks))
    mask = selector.choose(evidence, room)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != shape:
        given = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise InputError("selector", given, f"{name} to return a mask: a NumPy array of bool, shape {shape}")
    if (wrong := mask & ~room.whole).any():
        block = evidence.layout.blocks[int(np.flatnonzero(wrong.any(axis=0))[0])].name
        raise InputError("selector", block, f"{name} to choose only open blocks (Room.whole)")
    return mask
