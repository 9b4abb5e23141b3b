"""FedRep's local training (arXiv 2102.07078, Algorithm 1): first the head, then the layers below it.

In the paper a client takes some steps on its head with the representation fixed, and then steps on the
representation with the new head fixed. Here each of the two passes takes the number of steps that the
settings give for a client's training (ours).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate


def train_in_turn(
    train: Callable[..., ClientUpdate], start: ClientStart, round_index: int, client: int
) -> ClientUpdate:
    """Trains one client in two passes, each with an optimizer of its own, and returns its update.

    The second pass makes the same random draws as a client that trains in a single pass; the first pass has
    batches and dropout of its own. The client's correction is added in both.

    Args:
        train: `LocalTrainer.train`, which makes one pass.
        start: the client's start; the first pass trains its blocks `first`, the second its `blocks`.
        round_index: the round; see `LocalTrainer.train`.
        client: the client's number.

    Returns:
        The update after the second pass. Its steps are the sum, and its loss the mean over the steps of both
        passes.
    """
    samples, added = start.samples, start.correction
    one = train(
        start.params,
        start.buffers,
        samples,
        round_index,
        client,
        start.first,
        purpose="first ",
        correction=added,
    )
    # A copy, because `one.params` is the trainer's working vector: the second pass would move its own anchor.
    between = one.params.clone()
    two = train(between, one.buffers, samples, round_index, client, start.blocks, correction=added)
    steps = one.steps + two.steps
    return replace(two, steps=steps, loss=(one.loss * one.steps + two.loss * two.steps) / steps)
