"""References that a method has to beat: the model before training, and every client on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedtlu_fast.clients.client_errors import ClientTests
from fedtlu_fast.participation.cohort import draw_clients
from fedtlu_fast.simulation.evaluation import UNSOUND, figures, mean, means_over
from fedtlu_fast.simulation.server import Server
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.tasks.metrics import Evaluation

ZERO_SHOT, AFTER_WARMUP, LOCAL_ONLY = "zero_shot", "after_warmup", "local_only"
REFERENCES = (ZERO_SHOT, AFTER_WARMUP, LOCAL_ONLY)
"""The model before round 1; the model after the warm-up; every client that trains on its own from there."""


def with_warmup(names: Sequence[str], warmup_rounds: int) -> list[str]:
    """Adds ``after_warmup`` behind ``zero_shot`` to the names of arms, if there are warm-up rounds.

    The methods begin from the model after the warm-up, which must not be confused with the untrained one.

    Args:
        names: the names of the arms.
        warmup_rounds: the number of warm-up rounds.
    """
    found = list(names)
    if warmup_rounds and ZERO_SHOT in found and AFTER_WARMUP not in found:
        found.insert(found.index(ZERO_SHOT) + 1, AFTER_WARMUP)
    return found


def reference_rounds(name: str, warmup_rounds: int) -> int:
    """Returns the number of rounds that a reference runs."""
    return 0 if name == ZERO_SHOT else warmup_rounds


def reference_summary(name: str, server: Server, state: ServerState) -> dict[str, Any]:
    """Returns what a reference changes in the summary of a run that ends at `state`.

    ``zero_shot`` and ``after_warmup`` change nothing. For ``local_only`` each client trains on from `state`
    alone, as often as it would take part in the remaining rounds. The numbers are means over
    `evaluation.trained_clients` clients, of the global test and of each client's own test.

    Args:
        name: one of `REFERENCES`.
        server: the server of the run.
        state: the state after `reference_rounds`.

    Raises:
        ClientError: a client's data or its training raised, and `execution.client_errors` is ``stop``.
    """
    return _local_only(server, state) if name == LOCAL_ONLY else {}


def _local_only(server: Server, state: ServerState) -> dict[str, Any]:
    plan, trainer, clients = server.evaluation, server.trainer, server.population.clients
    times = max(1, round((server.rounds - state.round) * server.size / clients))
    count = max(1, plan.trained_clients)
    tests = ClientTests(plan.client_errors, state.round, done=True)
    everywhere: list[Evaluation] = []
    at_home: list[Evaluation] = []
    for client in draw_clients(server.seed, "trained clients", 0, clients, count):
        with tests.of(client):
            if not _train_alone(server, state, client, times):
                tests.leave_out(client, UNSOUND)
                continue
            held = server.own_test(client)
            own = [trainer.task.evaluate(held.alone(), plan.batch_size)] if len(held) else []
            everywhere.append(trainer.task.evaluate(plan.test, plan.batch_size))
            at_home += own
    loss, own_loss = mean([test.loss for test in everywhere]), mean([test.loss for test in at_home])
    return {
        "test_loss": loss,
        **figures("test", trainer.task, loss, means_over(everywhere)),
        "test_macro_f1": None,
        "test_f1": None,
        "local_loss": own_loss,
        **figures("local", trainer.task, own_loss, means_over(at_home)),
        "failed_tests": {str(client): reason for client, reason in tests.left_out.items()},
    }


def _train_alone(server: Server, state: ServerState, client: int, times: int) -> bool:
    """Trains one client alone and leaves its model in the trainer; returns whether that model is sound."""
    params, buffers = state.params, state.buffers
    samples = server.population.train(client)
    for time in range(times):
        update = server.trainer.train(params, buffers, samples, state.round + 1 + time, client)
        if not update.is_sound(buffers):
            return False
        params, buffers = update.params.clone(), update.buffers.clone()
    return True
