"""The tests: global (the end of every source) and local (what each client kept back of its own data)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.clients.client_errors import ClientTests, check_interrupt
from fedtlu_fast.data.population import Samples, joined
from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.memory import is_out_of_memory
from fedtlu_fast.participation.cohort import draw_clients
from fedtlu_fast.simulation.server import Server
from fedtlu_fast.simulation.state import ServerState
from fedtlu_fast.tasks.metrics import ACCURACY, LOSS, PERPLEXITY, Evaluation, perplexity
from fedtlu_fast.tasks.task import Task

UNSOUND = "its training gave NaN, Inf or numbers beyond 2^60"
"""Why a client that was trained is left out."""


@dataclass(frozen=True)
class LocalTest:
    """The clients' models on their own tests.

    Attributes:
        loss: mean of the clients' losses; None when no client was tested.
        means: likewise of each other figure that the task's tests measure, by name.
        left_out: clients that could not be tested, and why.
    """

    loss: float | None
    means: dict[str, float | None]
    left_out: dict[int, str]


@dataclass(frozen=True)
class TrainedTest:
    """The clients' models before and after each trains all of its own once more.

    Attributes:
        before: mean of the clients' losses on their own tests; None when no client was tested.
        after: likewise, when each has trained.
        left_out: clients that could not be trained or tested, and why.
    """

    before: float | None
    after: float | None
    left_out: dict[int, str]


def global_test(server: Server, state: ServerState) -> Evaluation:
    """The global model on the global test.

    Where clients keep blocks for themselves it has the values of these that no client uses any more, and the
    figures mean little (a personal head), or at least not what a client would have of the model.

    Raises:
        InputError: the model cannot be run on the test's samples.
    """
    server.trainer.load_(state.params, state.buffers)
    try:
        return server.trainer.task.evaluate(server.evaluation.test, server.evaluation.batch_size)
    except InputError:
        raise
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = cause(error)
        if server.names.own:
            expected = f"one whose evaluate() can be run on the global test; {reason}"
            raise InputError("task", type(server.trainer.task).__name__, expected) from error
        expected = f"data with a global test that the model can be run on; {reason}"
        raise InputError("data.source", server.names.source, expected) from error


def local_test(server: Server, state: ServerState, done: bool = False) -> LocalTest:
    """Loss and figures of each client's model on its own test: each client's mean, then over clients.

    A client's model is the global one, with its own values of what clients keep for themselves. Over all
    clients, or over `evaluation.local_clients` drawn once for the run where there are more. Clients that keep
    no samples back do not count.

    Args:
        server: of the run.
        state: after a round.
        done: whether that was the last round, and this is the test for the summary.

    Raises:
        ClientError: a client's data or its test raised, and the settings say to stop.
    """
    tests = ClientTests(server.evaluation.client_errors, state.round, done)
    held: dict[int, Samples] = {}
    for client in _tested(server):
        with tests.of(client):
            own = server.own_test(client)
            if len(own):
                held[client] = own
    own_models = server.steps.with_own_model(state.memory)
    shared = {client: own for client, own in held.items() if client not in own_models}
    found = _with_global_model(server, state, shared, tests)
    for client in held.keys() & own_models:
        with tests.of(client):
            server.trainer.load_(*_model_of(server, state, client))
            size = server.evaluation.batch_size
            found[client] = server.trainer.task.evaluate(held[client].alone(), size)
    results = [found[client] for client in held if client in found]
    return LocalTest(mean([one.loss for one in results]), means_over(results), tests.left_out)


def _with_global_model(
    server: Server, state: ServerState, held: Mapping[int, Samples], tests: ClientTests
) -> dict[int, Evaluation]:
    """All in one where the task allows it, which is much faster than client by client."""
    if not held:
        return {}
    server.trainer.load_(state.params, state.buffers)
    task, size = server.trainer.task, server.evaluation.batch_size
    try:
        if task.by_sample:
            found = task.evaluate(joined(list(held.values())), size)
            return dict(zip(held, found.split([len(own) for own in held.values()]), strict=True))
    except BaseException as error:
        check_interrupt(error)
        if is_out_of_memory(error):
            raise
        # One of them is to blame, and fails again on its own.
    single: dict[int, Evaluation] = {}
    for client, own in held.items():
        with tests.of(client):
            single[client] = task.evaluate(own.alone(), size)
    return single


def _model_of(server: Server, state: ServerState, client: int) -> Vectors:
    """Parameters and buffers of the client's model."""
    vectors = state.params, state.buffers
    return server.steps.tested_model(vectors, state.round + 1, client, state.memory)


def mean(values: Sequence[Tensor | None]) -> float | None:
    """Over clients; None when there are none, or one has no such figure."""
    found = [value for value in values if value is not None]
    return float(torch.stack(found).mean()) if found and len(found) == len(values) else None


def means_over(results: Sequence[Evaluation]) -> dict[str, float | None]:
    """The mean over clients of each figure that their tests measured."""
    names = dict.fromkeys(name for result in results for name in result.totals)
    each = [result.means for result in results]
    return {name: mean([one.get(name) for one in each]) for name in names}


def figures(
    test: str, task: Task, loss: float | None, means: Mapping[str, float | None]
) -> dict[str, float | None]:
    """A test's figures as rows and summaries have them: ``<test>_<name>``, None where not measured.

    Perplexity and accuracy are always among them, also for tasks that do not have them.

    Args:
        test: ``test``, ``local`` or ``start_test``.
        task: names the figures.
        loss: what the test found; None where there was no test.
        means: likewise, of each other figure.
    """
    own = [figure.name for figure in task.figures if figure != LOSS]
    names = dict.fromkeys([PERPLEXITY.name, ACCURACY.name, *own])
    found = {f"{test}_{name}": means.get(name) for name in names}
    if PERPLEXITY in task.figures:
        found[f"{test}_{PERPLEXITY.name}"] = perplexity(loss)
    return found


def trained_local_loss(server: Server, state: ServerState) -> TrainedTest:
    """Losses on the client's own test before and after the client trains all of its model once more.

    Its model is the global one, with its own values of what clients keep for themselves. Over
    `evaluation.trained_clients` clients, the same in every run of a seed. Clients that keep no samples back
    do not count; nor do those whose training gives no sound model (`soundness`), as in a round.

    Args:
        server: of the run.
        state: after the last round.

    Raises:
        ClientError: a client's data or its training raised, and the settings say to stop.
    """
    plan, task, population = server.evaluation, server.trainer.task, server.population
    tests, last = ClientTests(plan.client_errors, state.round, done=True), server.rounds + 1
    drawn = draw_clients(server.seed, "trained clients", 0, population.clients, plan.trained_clients)
    before, after = [], []
    for client in drawn:
        with tests.of(client):
            held = server.own_test(client)
            if not len(held):
                continue
            own = held.alone()
            model = _model_of(server, state, client)
            server.trainer.load_(*model)
            first = task.evaluate(own, plan.batch_size).loss
            vectors = state.params, state.buffers
            memory = server.steps.memories(state.memory, client)
            client_round = server.steps.on_client(vectors, last, client, memory=memory)
            start = client_round.before_training(population.train(client))
            update = server.trainer.train_one(start, last, client)
            if not update.is_sound(model[1]):
                tests.leave_out(client, UNSOUND)
                continue
            before.append(first)
            after.append(task.evaluate(own, plan.batch_size).loss)
    return TrainedTest(mean(before), mean(after), tests.left_out)


def _tested(server: Server) -> Iterable[int]:
    count, clients = server.evaluation.local_clients, server.population.clients
    if count == clients:
        return range(clients)
    return sorted(draw_clients(server.seed, "tested clients", 0, clients, count))
