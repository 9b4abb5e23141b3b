"""What any method has to beat: the model as it was, and every client for itself."""

from __future__ import annotations

from typing import Any

from fedtlu_fast.simulation.cohort import draw_clients
from fedtlu_fast.simulation.evaluation import mean, perplexity
from fedtlu_fast.simulation.round import Server
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.tasks.metrics import Evaluation

REFERENCES = ("zero_shot", "local_only")


def reference_summary(name: str, server: Server, state: ServerState) -> dict[str, Any]:
    """What differs from the summary of a run that has come to `state` and goes no further.

    ``zero_shot`` is that run. ``local_only``: each client trains on from there, alone, as often as it would
    take part in the rounds to come; means over `evaluation.trained_clients` clients, of the global test and
    of each one's own.

    Args:
        name: of `REFERENCES`.
        server: of the run.
        state: after the warm-up, if there is one.
    """
    return _local_only(server, state) if name == "local_only" else {}


def _local_only(server: Server, state: ServerState) -> dict[str, Any]:
    config, trainer, population = server.config, server.trainer, server.population
    times = max(1, round((config.rounds - state.round) * config.cohort / config.clients))
    count = max(1, min(config.evaluation.trained_clients, config.clients))
    everywhere: list[Evaluation] = []
    at_home: list[Evaluation] = []
    for client in draw_clients(config.seed, "trained clients", 0, config.clients, count):
        params, buffers = state.params, state.buffers
        for time in range(times):
            update = trainer.train(params, buffers, population.train(client), state.round + 1 + time, client)
            params, buffers = update.params.clone(), update.buffers.clone()
        size = config.evaluation.batch_size
        everywhere.append(trainer.task.evaluate(population.test, size))
        held = population.held_out(client)
        if len(held):
            at_home.append(trainer.task.evaluate(held.all(), size))
    loss, own = mean([test.loss for test in everywhere]), mean([test.loss for test in at_home])
    return {
        "test_loss": loss,
        "test_perplexity": perplexity(loss),
        "test_accuracy": mean([test.accuracy for test in everywhere]),
        "test_macro_f1": None,
        "test_f1": None,
        "local_loss": own,
        "local_perplexity": perplexity(own),
        "local_accuracy": mean([test.accuracy for test in at_home]),
    }
