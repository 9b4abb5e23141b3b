"""Chooses blocks and applies their change: the second half of a round for a user's own training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from fedtlu_fast.changes.result import ScoredChange
from fedtlu_fast.errors import InputError, check_kind, listed, not_one_of
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.randomness import generator
from fedtlu_fast.scoring.block_metrics import Change, measure, named
from fedtlu_fast.selection import (
    Evidence,
    Keep,
    Mask,
    Selection,
    Selector,
    ServerRoom,
    Unique,
    as_selector,
    select,
    server_room,
)

SCORE = "excess"
"""The metric of Eq. 1, the only one that a scored change has."""


def choose(
    scores: ScoredChange,
    keep: Keep = 1,
    selector: str | Selector | Callable[[Change], Any] = "fedtlu",
    *,
    unique: Unique = "always",
    seed: int = 0,
    round: int | None = None,  # noqa: A002
    last_choice: Selection | None = None,
) -> Selection:
    """Chooses the blocks to apply, as a round does.

    A block whose change holds NaN or Inf is never chosen, even if the selector chooses it.

    Args:
        scores: the result of `score`.
        keep: the number of blocks to keep in each group of like blocks (2), a share (0.5), or a mapping from
            every group's name to a number or share.
        selector: a name, such as ``fedtlu``, ``random``, ``last`` or ``full``, a dotted name, a selector, or
            your own function ``(change) -> scores [B]``.
        unique: whether unique blocks (embeddings, head) are chosen ``always`` or ``never``.
        seed: the seed; together with the round it decides all draws of the selector.
        round: the number of the round, from 1; a selector that draws, such as ``random``, needs it. None is
            round 1 for the other selectors.
        last_choice: the result of `choose` in the round before, for selectors that look at it; None before
            round 2.

    Raises:
        InputError: The selector is unknown, remembers rounds, or needs more than the change itself (facts
            about single clients, held-out samples, the parameters); it draws and `round` is missing; or
            `keep` or `last_choice` does not fit the blocks.

    Examples:
        >>> from fedtlu_fast import score
        >>> before = {f"h.{at}.w": torch.zeros(2) for at in range(3)}
        >>> after = {f"h.{at}.w": torch.tensor([at + 1.0, at + 2.0]) for at in range(3)}
        >>> choose(score(before, after, granularity="tensor"), keep=2).names
        ('h.1.w', 'h.2.w')
    """
    check_kind("scores", scores, ScoredChange, "the result of score")
    chooser, room = checked_choice(scores.layout, keep, selector, unique, seed)
    last = None if last_choice is None else _mask_of(last_choice, scores.layout)
    draws, index = generator(seed, "selection", round or 1), 1 if round is None else round
    change = Change(
        scores.layout,
        scores.stats,
        scores.scores,
        None,
        scores.layout,
        round=index,
        last_choice=last,
        weights=scores.weights,
    )
    others = {name: measure(name, change).blocks for name in chooser.metrics if name != SCORE}
    evidence = Evidence(
        layout=scores.layout,
        metrics={name: own.numpy()[None, :] for name, own in {SCORE: scores.block_scores, **others}.items()},
        generator=draws,
        round=index,
        change=change,
        last_choice=last,
    )
    chosen = select(chooser, evidence, room, unique, scores.stats.nonfinite, field="selector")
    if round is None and _has_drawn(draws):
        expected = f"the number of the round, from 1, since {type(chooser).__name__} draws by it"
        raise InputError("round", round, expected, "Without it every round would draw the same.")
    return chosen


def checked_choice(
    layout: ParameterLayout,
    keep: Keep,
    selector: str | Selector | Callable[[Change], Any],
    unique: Unique,
    seed: int,
) -> tuple[Selector, ServerRoom]:
    """Returns the selector, and what it may choose among these blocks; for arguments see `choose`.

    Raises:
        InputError: An argument is wrong or does not fit the blocks.
    """
    chooser = as_selector(selector)
    name = type(chooser).__name__
    if facts := chooser.asked():
        expected = f"a selector that needs no {named(facts)}, but this one needs {', '.join(chooser.needs)}"
        raise InputError("selector", name, expected)
    if chooser.has_memory:
        raise InputError("selector", name, "a selector without remembers(): choose has no memory of rounds")
    if unique not in get_args(Unique):
        raise not_one_of("unique", unique, get_args(Unique))
    check_kind("seed", seed, (int, np.integer), "a whole number")
    return chooser, _room(chooser, layout, keep)


def _has_drawn(draws: np.random.Generator) -> bool:
    return bool(draws.bit_generator.state["state"]["counter"].any())


def _room(selector: Selector, layout: ParameterLayout, keep: Keep) -> ServerRoom:
    """Returns the selector's room; errors name arguments of `choose`, not settings."""
    try:
        return server_room(selector, layout, keep)
    except InputError as error:
        raise error.of(error.field.removeprefix("selection.")) from None


def _mask_of(chosen: Selection, layout: ParameterLayout) -> Mask:
    """Returns the chosen blocks, found by name, as a mask [B] bool."""
    check_kind("last_choice", chosen, Selection, "what choose gave in the round before")
    names = [block.name for block in layout.blocks]
    if unknown := set(chosen.names) - set(names):
        raise InputError("last_choice", min(unknown), f"blocks of these scores: {listed(names)}")
    return np.array([name in chosen.names for name in names])


@torch.no_grad()
def apply_(
    target: nn.Module | Mapping[str, Tensor],
    change: Mapping[str, Tensor],
    chosen: Selection,
    lr: float = 1.0,
) -> None:
    """Adds ``lr`` times the change to the tensors of the chosen blocks, in place; others keep their bits.

    Buffers, such as BatchNorm's statistics, are not layers and keep their values.

    Args:
        target: a module, or a mapping from name to tensor, with the names of `before` in `score`.
        change: name -> ``after - before``, on any device; it has to hold every chosen layer.
        chosen: the result of `choose`.
        lr: the server's learning rate.

    Raises:
        InputError: A chosen layer is missing in target or change, the shapes differ, or the change of a
            chosen layer holds NaN or Inf. Nothing is changed then.
    """
    check_kind("chosen", chosen, Selection, "the result of choose")
    check_kind(
        "change", change, Mapping, "a mapping from name to the difference of two tensors, not a module"
    )
    check_kind("target", target, (nn.Module, Mapping), "a module, or a mapping from name to tensor")
    tensors = dict(target.named_parameters()) if isinstance(target, nn.Module) else target
    for name in chosen.layers:
        for field, held in (("target", tensors), ("change", change)):
            if name not in held:
                raise InputError(field, f"no tensor {name}", "all layers of the chosen blocks")
        if tensors[name].shape != change[name].shape:
            expected = f"shape {tuple(tensors[name].shape)}, as in the target"
            raise InputError(f"change: {name}", tuple(change[name].shape), expected)
        if not change[name].isfinite().all():
            raise InputError(
                f"change: {name}", "NaN or Inf", "finite numbers", "Use choose, which leaves such blocks out."
            )
    for name in chosen.layers:
        tensors[name].add_(change[name].to(tensors[name].device), alpha=lr)
