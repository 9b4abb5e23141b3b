"""The selectors of clients: which blocks each of them trains, or sends, within its budget.

Two moments: most choose before a client trains, and it trains nothing else (`Moment` ``train``); some let
it train everything and choose what it sends (``send``), by rule or by how far each block has moved
(``drift``). To add one: a class with `choose`, and a line in CLIENT_SELECTORS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from fedtlu_fast.errors import InputError
from fedtlu_fast.selection.agreement import choose_layers, normalise
from fedtlu_fast.selection.agreement.costs import ROUNDING
from fedtlu_fast.selection.selectors import Evidence, FedTLU, First, Last, Mask, Random, Ranking, Vector

if TYPE_CHECKING:
    from fedtlu_fast.config import ClientSelectionConfig

Moment = Literal["train", "send", "drift"]


@dataclass(frozen=True)
class Room:
    """What C clients may choose.

    A set of blocks costs the sum of their `costs` and, once, the largest of their `reach`.

    Attributes:
        open: [B] bool: the blocks that are chosen among.
        budgets: [C] float64.
        costs: [B] float64, of each block; 1 each where budgets count blocks.
        reach: [B] float64, of going down to a block (FLOPs of the backward pass); else 0.
    """

    open: Mask
    budgets: Vector
    costs: Vector
    reach: Vector


class ClientSelector(Protocol):
    """Chooses blocks for clients."""

    @property
    def moment(self) -> Moment:
        """When it chooses."""
        ...

    @property
    def metric(self) -> str | None:
        """What of `Evidence.metrics` it sees, from a probe or, at ``drift``, after training; or None."""
        ...

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """[C, B]: each client's blocks, all of them open, within its budget."""
        ...


class Ranked:
    """Each client takes the best blocks by a utility, as many as its budget holds."""

    def __init__(self, ranking: Ranking, metric: str | None = None, moment: Moment = "train") -> None:
        """Takes a selector of the server's, which ranks.

        Args:
            ranking: gives the utility; NaN for what must not be chosen.
            metric: see `ClientSelector`.
            moment: see `Moment`.
        """
        self.ranking, self.metric, self.moment = ranking, metric, moment

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Down the ranks, taking every block that still fits; equal utilities go to the earlier block."""
        return fill(self.ranking.utility(evidence), room)


class Both(Ranking):
    """From both ends of the model in turn, output first: a baseline of arXiv 2408.15600."""

    def __init__(self, open_blocks: Mask) -> None:
        self._open = open_blocks

    def utility(self, evidence: Evidence) -> Vector:
        """How few open blocks lie between a block and the nearer end; ties go to the output's side."""
        place = np.cumsum(self._open) - 1
        from_top = place[-1] - place
        nearness = -np.minimum(2 * from_top, 2 * place + 1).astype(np.float64)
        return np.tile(nearness, (evidence.rows, 1))


class Everything:
    """All open blocks, whatever the budget."""

    metric = None
    moment: Moment = "train"

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """The same for all."""
        return np.tile(room.open, (evidence.rows, 1))


class Strategic:
    """Large gradients, and agreement between clients: the solution of P1 (arXiv 2408.15600)."""

    moment: Moment = "train"

    def __init__(self, metric: str, lam: float) -> None:
        """Sets P1 up.

        Args:
            metric: what the gains are; the paper's are gradient norms.
            lam: lambda, in units of the round's mean gain (ours), so that it means the same in all models.
        """
        self.metric, self.lam = metric, lam

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """See `choose_layers`.

        Those who can train nothing choose nothing, and nobody has to agree with them: clients with a gain
        that is no number (their change would be refused), and those whose budget no block fits.
        """
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


class FedPart:
    """One block after another, from input to output, the same for all clients (FedPart, arXiv 2410.21230).

    Its first full rounds are the run's `warmup_rounds`.
    """

    metric = None
    moment: Moment = "train"

    def __init__(self, warmup_rounds: int, rounds_per_block: int, full_rounds: int) -> None:
        """Sets the cycle.

        Args:
            warmup_rounds: rounds before the first cycle.
            rounds_per_block: R/L of the paper.
            full_rounds: rounds that train everything between two cycles.
        """
        self._warmup, self._each, self._full = warmup_rounds, rounds_per_block, full_rounds

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """One block in every row, or all of them."""
        blocks = np.flatnonzero(room.open)
        partial = self._each * len(blocks)
        place = (evidence.round - self._warmup - 1) % max(1, partial + self._full)
        row = room.open.copy()
        if place < partial:
            row[:] = False
            row[blocks[place // self._each]] = True
        return np.tile(row, (evidence.rows, 1))


class FedLP:
    """Each client sends each block with a given chance (FedLP, arXiv 2303.06360)."""

    metric = None
    moment: Moment = "send"

    def __init__(self, probability: float) -> None:
        """The chance of being sent: 1 less the paper's pruning rate."""
        self._probability = probability

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Independent draws; a client may send no open block."""
        return (evidence.uniform() < self._probability) & room.open


class FedLUAR:
    """Blocks that move least for their size are not sent: their last change is used again.

    FedLUAR (arXiv 2503.11146): of the L open blocks, ``L - budget`` are drawn without replacement with
    chances in inverse proportion to ``||dW|| / ||W||`` of the round before. The choice holds for all clients.
    """

    metric = "relative_change"
    moment: Moment = "send"

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """All open blocks until there has been a change."""
        row, change = room.open.copy(), evidence.metrics["relative_change"][0]
        movers = np.flatnonzero(room.open & (change > 0))
        skipped = min(len(movers), max(0, int(room.open.sum()) - int(room.budgets[0])))
        if skipped:
            chances = 1 / change[movers]
            drawn = evidence.generator.choice(movers, skipped, replace=False, p=chances / chances.sum())
            row[drawn] = False
        return np.tile(row, (evidence.rows, 1))


def fill(utility: Vector, room: Room) -> Mask:
    """Each row's best blocks, best first, taking every one that still fits into its budget.

    Args:
        utility: [C, B], larger is better; NaN is never taken.
        room: what may be chosen.
    """
    usable = room.open & ~np.isnan(utility)
    order = np.argsort(-np.where(usable, utility, -np.inf), axis=1, kind="stable")
    mask = np.zeros(utility.shape, np.bool_)
    rows = np.arange(len(utility))
    spent, deepest = np.zeros(len(utility)), np.zeros(len(utility))
    for column in order.T:
        spending = spent + room.costs[column]
        depth = np.maximum(deepest, room.reach[column])
        taken = usable[rows, column] & within(spending + depth, room.budgets)
        mask[rows[taken], column[taken]] = True
        spent, deepest = np.where(taken, spending, spent), np.where(taken, depth, deepest)
    return mask


def within(spending: Vector, budgets: Vector) -> Mask:
    """Whether a budget is kept, but for rounding: three blocks of 0.1 fit into 0.3."""
    kept: Mask = spending <= budgets * (1 + ROUNDING)
    return kept


Maker = Callable[["ClientSelectionConfig", Mask, int], ClientSelector]
"""Of the settings, the open blocks and the run's warm-up rounds."""

CLIENT_SELECTORS: dict[str, Maker] = {
    "full": lambda config, blocks, warmup: Everything(),
    "random": lambda config, blocks, warmup: Ranked(Random()),
    "top": lambda config, blocks, warmup: Ranked(Last()),
    "bottom": lambda config, blocks, warmup: Ranked(First()),
    "both": lambda config, blocks, warmup: Ranked(Both(blocks)),
    "gradnorm": lambda config, blocks, warmup: Ranked(FedTLU("gradnorm"), "gradnorm"),
    "rgn": lambda config, blocks, warmup: Ranked(FedTLU("rgn"), "rgn"),
    "snr": lambda config, blocks, warmup: Ranked(FedTLU("snr"), "snr"),
    "strategic": lambda config, blocks, warmup: Strategic(config.metric, config.lam),
    "fedpart": lambda config, blocks, warmup: FedPart(warmup, config.rounds_per_block, config.full_rounds),
    "fedlp": lambda config, blocks, warmup: FedLP(config.probability),
    "fedluar": lambda config, blocks, warmup: FedLUAR(),
    "drift": lambda config, blocks, warmup: Ranked(FedTLU("drift"), "drift", "drift"),
}
"""``drift`` is FL4Health's dynamic layer exchange by norms: the blocks that moved furthest are sent."""


def make_client_selector(
    config: ClientSelectionConfig, open_blocks: Mask, warmup_rounds: int
) -> ClientSelector:
    """The one that the settings name.

    Args:
        config: not ``none``.
        open_blocks: [B] bool.
        warmup_rounds: of the run.

    Raises:
        InputError: there is none of this name.
    """
    if config.selector not in CLIENT_SELECTORS:
        raise InputError("client_selection.selector", config.selector, f"none, {', '.join(CLIENT_SELECTORS)}")
    return CLIENT_SELECTORS[config.selector](config, open_blocks, warmup_rounds)
