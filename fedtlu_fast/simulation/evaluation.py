"""The tests: global (the end of every source) and local (what each client kept back of its own data)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Samples
from fedtlu_fast.simulation.cohort import draw_clients
from fedtlu_fast.simulation.executors.lanes import Vectors
from fedtlu_fast.simulation.round import Server
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.tasks.metrics import Evaluation


def global_test(server: Server, state: ServerState) -> Evaluation:
    """The global model on the global test.

    Where clients keep blocks for themselves it has the values of these that no client uses any more, and the
    figures mean little (a personal head), or at least not what a client would have of the model.
    """
    server.trainer.load_(state.params, state.buffers)
    return server.trainer.task.evaluate(server.population.test, server.config.evaluation.batch_size)


def local_test(server: Server, state: ServerState) -> tuple[float | None, float | None]:
    """Loss and accuracy of each client's model on its own test: each client's mean, then over clients.

    A client's model is the global one, with its own values of what clients keep for themselves. Over all
    clients, or over `evaluation.local_clients` drawn once for the run where there are more. None when none of
    them keeps samples back; no accuracy where the task counts no hits.
    """
    kept = {client: server.population.held_out(client) for client in _tested(server.config)}
    held = {client: own for client, own in kept.items() if len(own)}
    if not held:
        return None, None
    found = _with_global_model(server, state, {k: own for k, own in held.items() if k not in state.personal})
    for client in held.keys() & state.personal.keys():
        server.trainer.load_(*_model_of(server, state, client))
        found[client] = server.trainer.task.evaluate(held[client].all(), server.config.evaluation.batch_size)
    tests = [found[client] for client in held]
    return mean([test.loss for test in tests]), mean([test.accuracy for test in tests])


def _with_global_model(
    server: Server, state: ServerState, held: Mapping[int, Samples]
) -> dict[int, Evaluation]:
    """All in one, which is much faster than client by client."""
    if not held:
        return {}
    server.trainer.load_(state.params, state.buffers)
    tests = [own.all() for own in held.values()]
    together = tuple(torch.cat(parts) for parts in zip(*tests, strict=True))
    found = server.trainer.task.evaluate(together, server.config.evaluation.batch_size)
    return dict(zip(held, found.split([len(test[0]) for test in tests]), strict=True))


def _model_of(server: Server, state: ServerState, client: int) -> Vectors:
    """Parameters and buffers that the client would start its training from."""
    vectors = state.params, state.buffers
    if server.personal is None:
        return vectors
    return server.personal.model_of(vectors, state.personal.get(client))


def mean(values: Sequence[Tensor | None]) -> float | None:
    """Over clients; None when there are none, or one has no such figure."""
    found = [value for value in values if value is not None]
    return float(torch.stack(found).mean()) if found and len(found) == len(values) else None


def trained_local_loss(server: Server, state: ServerState) -> tuple[float | None, float | None]:
    """Losses on the client's own test before and after the client trains all of its model once more.

    Its model is the global one, with its own values of what clients keep for themselves. Means over
    `evaluation.trained_clients` clients, the same in every run of a seed; None when that is 0, or when none
    of them keeps samples back.
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
        model = _model_of(server, state, client)
        server.trainer.load_(*model)
        before.append(task.evaluate(own, config.evaluation.batch_size).loss)
        server.trainer.train(*model, population.train(client), config.rounds + 1, client)
        after.append(task.evaluate(own, config.evaluation.batch_size).loss)
    return mean(before), mean(after)


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
