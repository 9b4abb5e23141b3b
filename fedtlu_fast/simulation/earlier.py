"""What the server remembers of the blocks of earlier rounds, by which it can choose before clients train."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.part_memory import Memory, recall, remember
from fedtlu_fast.scoring import score_layers
from fedtlu_fast.scoring.block_metrics import Change, measure
from fedtlu_fast.scoring.units import scored_layout
from fedtlu_fast.selection import Selector
from fedtlu_fast.selection.selector import EARLIER, LAST_SENT

SELECTION, CHOSEN = "Selection", "chosen"
"""Under which names the server's choice of the round before is remembered: [B] bool."""


def earlier_metrics(selector: Selector, memory: Memory, blocks: int) -> dict[str, NDArray[np.float64]]:
    """Returns the numbers that a client selector asks for, [1, B] each; nothing if it asks for none.

    Args:
        selector: chooses for clients.
        memory: of all parts.
        blocks: the number of blocks, B.
    """
    known = _known(memory, blocks)
    return {name: own.cpu().numpy()[None, :] for name, own in known.items() if name in selector.needs}


def _known(memory: Memory, blocks: int) -> dict[str, Tensor]:
    """Returns the blocks' scores and the rounds in which they were sent, [B] float64 each, if known."""
    held = recall(memory, SELECTION).server
    unknown = {EARLIER: torch.full((blocks,), torch.nan), LAST_SENT: torch.zeros(blocks)}
    return {name: held.get(name, start).double() for name, start in unknown.items()}


def with_choice(memory: Memory, chosen: Tensor) -> Memory:
    """Returns the memory of all parts with the blocks that were applied in this round, [B] bool."""
    known = recall(memory, SELECTION)
    return remember(memory, SELECTION, known.with_server({**known.server, CHOSEN: chosen}))


def with_scores(memory: Memory, selector: Selector | None, change: Change, unsent: Blocks) -> Memory:
    """Returns the memory of all parts with the scores of this targeted round, if they are asked for.

    Args:
        memory: before the round.
        selector: chooses for clients; None: no selector does.
        change: the round's aggregated change.
        unsent: the blocks that no client sent; they keep their scores.
    """
    if selector is None or not {EARLIER, LAST_SENT} & set(selector.needs):
        return memory
    blocks, known = len(change.layout.blocks), recall(memory, SELECTION)
    scores, sent = (own.clone() for own in _known(memory, blocks).values())
    own = replace(
        change,
        scores=score_layers(change.stats, selector.ddof),
        scored=scored_layout(change.layout, selector.scored_layers),
        pooling=selector.pooling,
    )
    there = torch.ones(blocks, dtype=torch.bool)
    there[list(unsent)] = False
    scores[there] = measure(getattr(selector, "metric", "excess"), own).blocks[there]
    sent[there] = float(change.round)
    return remember(memory, SELECTION, known.with_server({**known.server, EARLIER: scores, LAST_SENT: sent}))
