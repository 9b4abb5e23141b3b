"""The tests: global (the end of every source) and local (what each client kept back of its own data)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from fedtlu_fast.config import RunConfig
from fedtlu_fast.simulation.cohort import draw_clients
from fedtlu_fast.simulation.round import Server
from fedtlu_fast.simulation.state import ServerState


def global_loss(server: Server, state: ServerState) -> float:
    """Mean loss of the global model on the global test."""
    server.trainer.load_(state.params, state.buffers)
    batch_size = server.config.evaluation.batch_size
    return float(server.trainer.task.sample_losses(server.population.test, batch_size).mean())


def local_loss(server: Server, state: ServerState) -> float | None:
    """Mean over clients of the global model's mean loss on the client's own test.

    Over all clients, or over `evaluation.local_clients` drawn once for the run where there are more. None
    when none of them keeps samples back.
    """
    server.trainer.load_(state.params, state.buffers)
    held = [server.population.held_out(client) for client in _tested(server.config)]
    tests = [own.all() for own in held if len(own)]
    if not tests:
        return None
    together = tuple(torch.cat(parts) for parts in zip(*tests, strict=True))
    losses = server.trainer.task.sample_losses(together, server.config.evaluation.batch_size)
    own = torch.split(losses, [len(test[0]) for test in tests])
    return float(torch.stack([part.mean() for part in own]).mean())


def trained_local_loss(server: Server, state: ServerState) -> tuple[float | None, float | None]:
    """Losses on the client's own test before and after the client trains the global model once more.

    Means over `evaluation.trained_clients` clients, the same in every run of a seed; None when that is 0,
    or when none of them keeps samples back.
    """
    config, task, population = server.config, server.trainer.task, server.population
    count = min(config.evaluation.trained_clients, config.clients)
    drawn = draw_clients(config.seed, "trained clients", 0, config.clients, count)
    before, after = [], []
    for client in drawn:
        held = population.held_out(client)
        if not len(held):
            continue
        own = held.all()
        server.trainer.load_(state.params, state.buffers)
        before.append(task.sample_losses(own, config.evaluation.batch_size).mean())
        server.trainer.train(state.params, state.buffers, population.train(client), config.rounds + 1, client)
        after.append(task.sample_losses(own, config.evaluation.batch_size).mean())
    if not before:
        return None, None
    return float(torch.stack(before).mean()), float(torch.stack(after).mean())


def _tested(config: RunConfig) -> Iterable[int]:
    count = config.evaluation.local_clients
    if count is None or count >= config.clients:
        return range(config.clients)
    return sorted(draw_clients(config.seed, "tested clients", 0, config.clients, count))


def perplexity(loss: float | None) -> float | None:
    """exp(loss), the number language models are compared by; infinite when that overflows."""
    if loss is None:
        return None
    return math.exp(loss) if loss < 700 else math.inf
