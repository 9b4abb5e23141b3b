"""Which executor a run gets: the one named, or for ``auto`` the quicker one by a short measurement.

What decides a result's last bits (`clients_per_batch`, `engine`) follows from settings and a rule (`rule`),
never from a measurement. Only who works on it is measured, which does not change the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import replace

from fedtlu_fast.build.lanes import make_lane_trainer
from fedtlu_fast.build.measured import place_of, remember, remembered
from fedtlu_fast.build.remote import make_recipe
from fedtlu_fast.build.way import Way, most_clients_per_batch, shared_out, way_of
from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.clients.batches import normalises_batches, steps_of
from fedtlu_fast.clients.client_errors import check_interrupt, left_to_the_round
from fedtlu_fast.clients.compiled import CannotCompileError, CompiledTrainer
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import CannotVectorizeError, VectorizedTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Population, Samples, example_samples
from fedtlu_fast.errors import InputError
from fedtlu_fast.executors import processes
from fedtlu_fast.executors.executor import Executor, ExecutorPart, LaneWork
from fedtlu_fast.executors.own import OwnExecutor
from fedtlu_fast.executors.parts import Auto, Processes, Serial, Vectorized
from fedtlu_fast.machine import cores
from fedtlu_fast.memory import give_back
from fedtlu_fast.own_errors import is_ours
from fedtlu_fast.participation.cohort import sample_cohort
from fedtlu_fast.parts import make, parameters

WORTH_A_ROUND, WORTH_A_RUN = 0.01, 0.2
"""Seconds that a round and all rounds take from which on worker processes are worth their start."""
TRIED = 2
"""Steps of a client that are measured, at most; so the measurement is short however long a client trains."""
COLD = 20
"""A first call may take so many times as long as later ones (all of them may be too short to matter)."""


def choose(
    config: RunConfig, population: Population, trainer: LocalTrainer, steps: ClientSteps
) -> tuple[RunConfig, str]:
    """The settings with executor and `clients_per_batch` settled, and a line that says what was chosen.

    Args:
        config: as given.
        population: who holds what.
        trainer: of single clients.
        steps: what clients do around training.

    Raises:
        InputError: the settings name an executor that cannot be used here, or not as they say.
    """
    given = config.execution
    executor, compiled = given.executor, given.engine == "compiled"
    if isinstance(executor, Auto):
        return _measure(executor, config, population, trainer, steps)
    if isinstance(executor, Serial) and (given.clients_per_batch or 1) > 1 and not compiled:
        raise InputError(
            "execution.clients_per_batch",
            given.clients_per_batch,
            "1 with executor=serial",
            "Use vectorized.",
        )
    clients_per_batch = given.clients_per_batch or (shared_out(config, steps) if compiled else 1)
    if isinstance(executor, Vectorized):
        if compiled:
            raise InputError(
                "execution.engine", given.engine, "torch with executor=vectorized", "Use serial."
            )
        clients_per_batch = given.clients_per_batch or most_clients_per_batch(config, population, trainer)
        if clients_per_batch < 2:
            raise InputError(
                "execution.clients_per_batch", clients_per_batch, "2 or more with executor=vectorized"
            )
    with _of_execution():
        executor.check(config.device, config.threads)
    return _settled(config, executor, clients_per_batch, given.engine or "torch"), ""


def make_executor(
    config: RunConfig, population: Population, trainer: LocalTrainer, steps: ClientSteps
) -> Executor:
    """The executor that settled settings name.

    Args:
        config: of the run, see `choose`.
        population: says what each client holds.
        trainer: of single clients.
        steps: what clients do around training.

    Raises:
        InputError: the model cannot be compiled, or vectorised, and the settings ask for it.
        BackendUnavailableError: Ray is asked for and not installed.
    """
    work, part = lane_work(config, population, trainer, steps), config.execution.executor
    with _of_execution():
        opened = part.open(work)
    return opened if is_ours(part) else OwnExecutor(part, opened, work.trainer)


def lane_work(
    config: RunConfig, population: Population, trainer: LocalTrainer, steps: ClientSteps
) -> LaneWork:
    """What the executor of a run is given; see `make_executor`."""
    given = config.execution
    try:
        lanes = make_lane_trainer(config, population, trainer, steps)
    except CannotCompileError as error:
        raise _no_kernel(error) from error
    except CannotVectorizeError as error:
        raise _no_vmap(error, config) from error
    recipe = make_recipe(config, trainer.layout, population.fingerprint)
    return LaneWork(lanes, recipe, config.cohort, config.device, given.client_errors)


@contextmanager
def _of_execution() -> Iterator[None]:
    """Inside, errors of an executor name the settings of a run."""
    try:
        yield
    except InputError as error:
        if error.field in RunConfig.model_fields or error.field.startswith("execution."):
            raise
        raise error.of(f"execution.{error.field}") from None


def _no_kernel(error: CannotCompileError) -> InputError:
    return InputError("execution.engine", "compiled", f"torch for this model: {error}")


def _no_vmap(error: CannotVectorizeError, config: RunConfig) -> InputError:
    """Returns the error that names the setting which asks for many clients in one pass."""
    given = config.execution
    if isinstance(given.executor, Vectorized):
        expected = f"serial or processes for this model: {error}"
        return InputError("execution.executor", given.name_of("executor"), expected)
    expected = f"1 for this model: {error}"
    return InputError("execution.clients_per_batch", given.clients_per_batch, expected)


def _settled(config: RunConfig, executor: ExecutorPart, clients_per_batch: int, engine: str) -> RunConfig:
    update = {"executor": executor, "clients_per_batch": clients_per_batch, "engine": engine}
    return config.model_copy(update={"execution": config.execution.model_copy(update=update)})


def _measure(
    auto: Auto, config: RunConfig, population: Population, trainer: LocalTrainer, steps: ClientSteps
) -> tuple[RunConfig, str]:
    way = _as_given(config, steps) or way_of(config, population, trainer, steps)
    place = place_of(config, population, trainer.layout, way)
    known = remembered(place) if place else None
    seconds = _seconds(way, config, population, trainer) if known is None else known
    if place and known is None and seconds > 0:
        remember(place, seconds)
    can = processes.why_not(config.device, config.threads) is None
    workers = min(auto.workers or cores(), -(-config.cohort // way.clients_per_batch)) if can else 1
    worth_it = _worth_workers(seconds, config)
    # Only another process can be stopped when a client takes too long.
    timed = auto.client_seconds is not None and can
    kind: type[ExecutorPart] = Serial
    if timed or (workers > 1 and worth_it):
        kind = Processes
    elif way.engine == "torch" and way.clients_per_batch > 1:
        kind = Vectorized
    give_back()  # the workers will need it
    with _of_execution():
        executor = make(kind, {name: getattr(auto, name) for name in parameters(kind)})
    name = config.execution.choosers()["executor"].name_of(executor)
    where = f"processes, {workers} workers" if kind is Processes else name
    together = "in one compiled call" if way.engine == "compiled" else "at once"
    many = f", {way.clients_per_batch} clients {together}" if way.clients_per_batch > 1 else ""
    source = "measured" if known is None else "measured before"
    note = f"executor: {where}{many} ({way.reason}; {source}: {1e3 * seconds:.3g} ms a client)"
    return _settled(config, executor, way.clients_per_batch, way.engine), note


def _as_given(config: RunConfig, steps: ClientSteps) -> Way | None:
    """The way that the settings name, if they do."""
    given = config.execution
    if given.engine == "compiled":
        return Way(
            "compiled", given.clients_per_batch or shared_out(config, steps), "execution.engine=compiled"
        )
    if given.clients_per_batch is not None:
        return Way("torch", given.clients_per_batch, f"execution.clients_per_batch={given.clients_per_batch}")
    return None


def _worth_workers(seconds: float, config: RunConfig) -> bool:
    """Tells whether worker processes are worth their start if a client takes so long."""
    round_seconds = seconds * config.cohort
    return round_seconds > WORTH_A_ROUND and round_seconds * config.rounds > WORTH_A_RUN


def _seconds(way: Way, config: RunConfig, population: Population, trainer: LocalTrainer) -> float:
    """What one client takes this way; 0 where those that were tried raise, which is the rounds' business.

    It is the time of the first steps, as far as all clients tried have these, for all steps.
    """
    held = _sound(config, population, way.clients_per_batch)
    params, buffers = trainer.params.clone(), trainer.layout.flatten_buffers(trainer.task.model)
    example, own = example_samples(population), list(held.values())
    alone = not normalises_batches(trainer.task.model)
    steps = [steps_of(len(samples), trainer.local, alone) for samples in own if len(samples)]
    tried = min(TRIED, *steps) if steps else TRIED
    trainer = copy(trainer)
    trainer.local = replace(trainer.local, steps=tried, epochs=None)
    scale = sum(steps) / (tried * len(own))

    def timed(call: Callable[[], object]) -> float:
        return _timed(call, scale, lambda first: _worth_workers(first / (COLD * len(held)), config))

    parts = (trainer.task, trainer.layout, trainer.local, config.seed)
    try:
        if way.engine == "compiled":
            compiled = CompiledTrainer(*parts, example)
            seconds = timed(lambda: compiled.train_sum(params, own, 1, list(held)))
        elif way.clients_per_batch > 1:
            many = VectorizedTrainer(*parts, len(held), example, config.execution.precision)
            seconds = timed(lambda: many.train(params, own, 1, list(held)))
        else:
            seconds = timed(lambda: trainer.train(params, buffers, own[0], 1, next(iter(held))))
    except CannotCompileError as error:
        raise _no_kernel(error) from error
    except CannotVectorizeError as error:
        raise _no_vmap(error, config) from error
    except BaseException as error:
        check_interrupt(error)
        return 0.0
    return seconds / len(held)


def _sound(config: RunConfig, population: Population, count: int) -> dict[int, Samples]:
    """What the first clients of the first cohort hold; those whose data raise are the rounds' business."""
    found: dict[int, Samples] = {}
    for client in sample_cohort(config.seed, 1, config.clients, config.cohort):
        if len(found) < count:
            with left_to_the_round():
                found[client] = population.train(client)
    return found or {-1: example_samples(population)}


def _timed(call: Callable[[], object], scale: float, is_clear: Callable[[float], bool]) -> float:
    """The shortest of three calls, or of fewer when they take long, times `scale`.

    The first one warms up; it is the only one where its time, which is too long, makes things clear.
    """
    taken: list[float] = []
    while len(taken) < 3 and sum(taken) <= 0.4 * scale:
        start = time.perf_counter()
        call()
        taken.append(scale * (time.perf_counter() - start))
        if is_clear(taken[0]):
            break
    return min(taken)
