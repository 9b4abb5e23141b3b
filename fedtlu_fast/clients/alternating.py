"""FedRep's local training (arXiv 2102.07078, Algorithm 1): first the head, then what lies below it.

There a client makes some steps on its head with the representation fixed, and then on the representation
with the new head fixed. Here either takes as many steps as the settings say for a client's training (ours).
"""

from __future__ import annotations

from dataclasses import replace

from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.clients.training import LocalTrainer


def train_in_turn(trainer: LocalTrainer, start: ClientStart, round_index: int, client: int) -> ClientUpdate:
    """One client's local training in two passes, each with an optimizer of its own.

    The second draws what training in one pass would draw, the first its own batches and dropout. A
    correction is added in both.

    Args:
        trainer: trains the client.
        start: where it starts; `first` are the blocks of the first pass, `blocks` those of the second.
        round_index: see `LocalTrainer.train`.
        client: likewise.

    Returns:
        What the second pass leaves; steps and loss are those of both.
    """
    samples, added = start.samples, start.correction
    one = trainer.train(
        start.params,
        start.buffers,
        samples,
        round_index,
        client,
        start.first,
        purpose="first ",
        correction=added,
    )
    # The trainer's own vector, which the second pass would change under its proximal term.
    between = one.params.clone()
    two = trainer.train(between, one.buffers, samples, round_index, client, start.blocks, correction=added)
    steps = one.steps + two.steps
    return replace(two, steps=steps, loss=(one.loss * one.steps + two.loss * two.steps) / steps)
