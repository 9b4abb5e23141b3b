"""The tests: global (the end of every source) and local (what each client kept back of its own data)."""

from __future__ import annotations

import math

import torch

from fedtlu_fast.randomness import generator
from fedtlu_fast.simulation.round import Server
from fedtlu_fast.simulation.state import ServerState


def global_loss(server: Server, state: ServerState) -> float:
    """Mean loss of the global model on the global test."""
    server.trainer.load_(state.params, state.buffers)
    losses = server.trainer.task.sample_losses(server.test, server.config.evaluation.batch_size)
    return float(losses.mean())


def local_loss(server: Server, state: ServerState) -> float:
    """Mean over all clients of the global model's mean loss on the client's own test."""
    server.trainer.load_(state.params, state.buffers)
    tests = [torch.from_numpy(client.test) for client in server.data.clients]
    rows = server.samples[torch.cat(tests)]
    losses = server.trainer.task.sample_losses(rows, server.config.evaluation.batch_size)
    own = torch.split(losses, [len(test) for test in tests])
    return float(torch.stack([part.mean() for part in own]).mean())


def trained_local_loss(server: Server, state: ServerState) -> tuple[float | None, float | None]:
    """Losses on the client's own test before and after the client trains the global model once more.

    Means over `evaluation.trained_clients` clients, the same in every run of a seed; None when that is 0.
    """
    config, task = server.config, server.trainer.task
    count = min(config.evaluation.trained_clients, config.clients)
    if not count:
        return None, None
    drawn = generator(config.seed, "trained clients").choice(config.clients, size=count, replace=False)
    before, after = [], []
    for client in map(int, drawn):
        held = server.data.clients[client]
        own = server.samples[torch.from_numpy(held.test)]
        server.trainer.load_(state.params, state.buffers)
        before.append(task.sample_losses(own, config.evaluation.batch_size).mean())
        server.trainer.train(
            state.params, state.buffers, server.samples, held.train, config.rounds + 1, client
        )
        after.append(task.sample_losses(own, config.evaluation.batch_size).mean())
    return float(torch.stack(before).mean()), float(torch.stack(after).mean())


def perplexity(loss: float | None) -> float | None:
    """exp(loss), the number language models are compared by; infinite when that overflows."""
    if loss is None:
        return None
    return math.exp(loss) if loss < 700 else math.inf
