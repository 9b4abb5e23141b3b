"""FedRep's local training (arXiv 2102.07078, Algorithm 1): first the head, then what lies below it.

There a client makes some steps on its head with the representation fixed, and then on the representation
with the new head fixed. Here either takes as many steps as the settings say for a client's training (ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from fedtlu_fast.clients.training import ClientUpdate, LocalTrainer
from fedtlu_fast.data.population import Samples


def train_in_turn(
    trainer: LocalTrainer,
    params: Tensor,
    buffers: Tensor,
    samples: Samples,
    round_index: int,
    client: int,
    first: Sequence[int],
    then: Sequence[int],
) -> ClientUpdate:
    """One client's local training in two passes, each with an optimizer of its own.

    The second draws what training in one pass would draw, the first its own batches and dropout.

    Args:
        trainer: trains the client.
        params: [P], where it starts; not changed.
        buffers: [Q], likewise.
        samples: see `LocalTrainer.train`.
        round_index: likewise.
        client: likewise.
        first: blocks of the first pass.
        then: blocks of the second.

    Returns:
        What the second pass leaves; steps and loss are those of both.
    """
    one = trainer.train(params, buffers, samples, round_index, client, first, purpose="first ")
    # The trainer's own vector, which the second pass would change under its proximal term.
    between = one.params.clone()
    two = trainer.train(between, one.buffers, samples, round_index, client, then)
    steps = one.steps + two.steps
    return replace(two, steps=steps, loss=(one.loss * one.steps + two.loss * two.steps) / steps)
