"""Which executor a run gets: the one named, or by a short measurement.

`at_once` and `lanes` decide the last bits of a result, who works on it does not. So the choice is made once
and becomes part of the run's settings: repeated from its config.yaml, a run gives the same bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from fedtlu_fast.clients.compiled import CannotCompileError, CompiledTrainer
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import CannotVectorizeError, VectorizedTrainer, saved_bytes
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Population, Samples, example_samples
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.machine import cores
from fedtlu_fast.memory import give_back
from fedtlu_fast.simulation.cohort import sample_cohort
from fedtlu_fast.simulation.executors import processes
from fedtlu_fast.simulation.executors.executor import Executor, InProcess
from fedtlu_fast.simulation.executors.lane_trainer import LaneTrainer

MOST_AT_ONCE = 256
"""More clients at once are hardly faster, and leave less for others to do."""
BUDGET = 512 * 2**20
"""Bytes that the clients trained at once may take in one worker."""
CLEARLY = 1.5
"""How much faster it has to be to train many at once, so that noise does not choose."""
LONG_STEP = 0.02
"""Seconds of one optimizer step beyond which there is no overhead left for vectorising to save."""


def choose(config: RunConfig, population: Population, trainer: LocalTrainer) -> tuple[RunConfig, str]:
    """The settings with executor and `at_once` settled, and a line that says what was chosen and why.

    Args:
        config: as given.
        population: who holds what.
        trainer: of single clients.

    Raises:
        InputError: an executor that cannot be used here was asked for by name.
    """
    given = config.execution
    name = given.executor.partition(":")[0]
    if name == "auto":
        return _measure(config, population, trainer)
    compiled = given.engine == "compiled"
    if name == "serial" and (given.at_once or 1) > 1 and not compiled:
        raise InputError("execution.at_once", given.at_once, "1 with executor=serial", "Use vectorized.")
    at_once = given.at_once or (_most_in_a_call(config) if compiled else 1)
    if name == "vectorized":
        if compiled:
            raise InputError(
                "execution.engine", given.engine, "torch with executor=vectorized", "Use serial."
            )
        at_once = given.at_once or most_at_once(config, population, trainer)
        if at_once < 2:
            raise InputError("execution.at_once", at_once, "2 or more with executor=vectorized")
    if name == "processes":
        reason = processes.why_not(config.device, config.threads)
        if reason is not None:
            raise InputError("execution.executor", name, f"another here: {reason}")
    return _settled(config, given.executor, at_once, given.engine or "torch"), ""


def make_executor(config: RunConfig, population: Population, trainer: LocalTrainer) -> Executor:
    """The executor that settled settings name.

    Raises:
        InputError: the model cannot be compiled, or vectorised, and the settings ask for it.
        BackendUnavailableError: Ray is asked for and not installed.
    """
    given = config.execution
    name, _, address = given.executor.partition(":")
    try:
        lanes = LaneTrainer(config, population, trainer)
    except CannotCompileError as error:
        raise _no_kernel(error) from error
    except CannotVectorizeError as error:
        raise InputError(
            "execution.at_once",
            given.at_once,
            f"1 for this model: {error}",
            "Use executor=serial or processes.",
        ) from error
    if name == "processes":
        return processes.Processes(lanes, given, min(given.workers or cores(), config.cohort))
    if name == "ray":
        # Imported late: Ray is an extra.
        from fedtlu_fast.simulation.executors.ray import RayExecutor

        return RayExecutor(config, trainer.layout, population.fingerprint, address)
    return InProcess(lanes)


def _no_kernel(error: CannotCompileError) -> InputError:
    return InputError("execution.engine", "compiled", f"torch for this model: {error}")


def most_at_once(config: RunConfig, population: Population, trainer: LocalTrainer) -> int:
    """How many clients fit into `BUDGET` at once, `MOST_AT_ONCE` at most and 2 at least."""
    activations = saved_bytes(trainer.task, example_samples(population), config.training.batch_size)
    each = matrix_bytes(trainer.layout, config) + 2 * activations
    return max(2, min(MOST_AT_ONCE, BUDGET // each))


def matrix_bytes(layout: ParameterLayout, config: RunConfig) -> int:
    """Bytes of one client's rows: parameters, gradients twice, one temporary, and the optimizer's state."""
    state = 2 if config.training.optimizer == "adamw" else int(config.training.momentum > 0)
    return 4 * layout.size * (4 + state)


def _most_in_a_call(config: RunConfig) -> int:
    """Clients that a compiled call trains and adds up; a robust rule wants each on its own."""
    return 1 if config.one_by_one else min(MOST_AT_ONCE, config.cohort)


def _settled(config: RunConfig, executor: str, at_once: int, engine: str) -> RunConfig:
    if config.execution.client_seconds is not None and executor in ("serial", "vectorized"):
        raise InputError(
            "execution.client_seconds",
            config.execution.client_seconds,
            f"null with executor={executor}: this process cannot stop a client of its own",
            "Use processes or ray.",
        )
    settled = config.execution.model_copy(update={"executor": executor, "at_once": at_once, "engine": engine})
    return config.model_copy(update={"execution": settled})


@dataclass(frozen=True)
class Way:
    """A way to train clients, and what it takes.

    Attributes:
        engine: torch or compiled.
        at_once: clients that a worker trains at once, or in one call.
        seconds: for each client.
    """

    engine: str
    at_once: int
    seconds: float


def _measure(config: RunConfig, population: Population, trainer: LocalTrainer) -> tuple[RunConfig, str]:
    given = config.execution
    workers = _useful_workers(config)
    if given.at_once is None and given.engine != "compiled":
        way, told = _compare(config, population, trainer, workers)
    else:
        way, told = _as_given(config, population, trainer)
    round_seconds = way.seconds * config.cohort
    worth_it = round_seconds > 0.01 and round_seconds * config.rounds > 0.2
    # Only another process can be stopped when a client takes too long.
    timed = given.client_seconds is not None and processes.why_not(config.device, config.threads) is None
    several = timed or (workers > 1 and worth_it)
    vectorized = way.engine == "torch" and way.at_once > 1
    name = "processes" if several else "vectorized" if vectorized else "serial"
    give_back()  # the workers will need it
    where = f"processes, {workers} workers" if several else name
    many = f", {way.at_once} clients {_together(way.engine)}" if way.at_once > 1 else ""
    note = f"executor: {where}{many} (measured: {'; '.join(told)})"
    return _settled(config, name, way.at_once, way.engine), note


def _useful_workers(config: RunConfig) -> int:
    if processes.why_not(config.device, config.threads) is not None:
        return 1
    return min(config.execution.workers or cores(), config.cohort)


def _together(engine: str) -> str:
    return "in one compiled call" if engine == "compiled" else "at once"


def _as_given(config: RunConfig, population: Population, trainer: LocalTrainer) -> tuple[Way, list[str]]:
    """The way that the settings name, timed."""
    given = config.execution
    if given.engine == "compiled":
        try:
            way = _try_compiled(config, population, trainer, given.at_once or _most_in_a_call(config))
        except CannotCompileError as error:
            raise _no_kernel(error) from error
    elif (given.at_once or 1) > 1:
        way = _try_vectorized(config, population, trainer, given.at_once or 1)
    else:
        way = Way("torch", 1, _serial_seconds(config, population, trainer)[0])
    how = _together(way.engine) if way.at_once > 1 else "one after another"
    return way, [f"{_ms(way.seconds)} a client {how}"]


def _compare(
    config: RunConfig, population: Population, trainer: LocalTrainer, workers: int
) -> tuple[Way, list[str]]:
    """The fastest way, and what was measured."""
    one, steps = _serial_seconds(config, population, trainer)
    serial = Way("torch", 1, one)
    told = [f"{_ms(one)} a client one after another"]
    if config.one_by_one or config.client_selection.keeps or config.execution.compile != "none":
        return serial, told
    each_worker = math.ceil(config.cohort / workers)
    alike = config.execution.precision == "float32" and config.client_selection.selector == "none"
    if config.execution.engine is None and alike:
        with suppress(CannotCompileError):  # of most models, and nothing worth telling
            compiled = _try_compiled(config, population, trainer, min(MOST_AT_ONCE, each_worker))
            told.append(f"{_ms(compiled.seconds)} compiled")
            if one > CLEARLY * compiled.seconds:
                return compiled, told
    if one / steps > LONG_STEP:
        return serial, [*told, "a step is too long to gain from training several at once"]
    at_once = min(most_at_once(config, population, trainer), each_worker)
    if at_once < 2:
        return serial, [*told, "the cohort is too small to train several at once"]
    try:
        many = _try_vectorized(config, population, trainer, at_once)
    except CannotVectorizeError as error:
        return serial, [*told, f"several at once: impossible, {error}"]
    told.append(f"{_ms(many.seconds)} with {at_once} at once")
    return many if one > CLEARLY * many.seconds else serial, told


def _serial_seconds(config: RunConfig, population: Population, trainer: LocalTrainer) -> tuple[float, int]:
    """Seconds for one client, and its number of steps."""
    client, samples = next(iter(_sound(config, population, 1).items()))
    params, buffers = trainer.params.clone(), trainer.layout.flatten_buffers(trainer.task.model)
    steps = 1

    def train() -> None:
        nonlocal steps
        steps = trainer.train(params, buffers, samples, 1, client).steps

    return _timed(train), steps


def _try_vectorized(config: RunConfig, population: Population, trainer: LocalTrainer, at_once: int) -> Way:
    """So many clients in one model."""
    held = _sound(config, population, at_once)
    example = example_samples(population)
    parts = (trainer.task, trainer.layout, config.training, config.seed)
    many = VectorizedTrainer(*parts, len(held), example, config.execution.precision)
    params = trainer.params.clone()
    seconds = _timed(lambda: many.train(params, list(held.values()), 1, list(held))) / len(held)
    return Way("torch", at_once, seconds)


def _try_compiled(config: RunConfig, population: Population, trainer: LocalTrainer, at_once: int) -> Way:
    """So many clients in one call of the kernel."""
    example = example_samples(population)
    compiled = CompiledTrainer(trainer.task, trainer.layout, config.training, config.seed, example)
    held = _sound(config, population, at_once)
    params = trainer.params.clone()
    try:
        seconds = _timed(lambda: compiled.train_sum(params, list(held.values()), 1, list(held)))
    except ValueError as error:
        raise CannotCompileError(str(error)) from error
    return Way("compiled", at_once, seconds / len(held))


def _sound(config: RunConfig, population: Population, count: int) -> dict[int, Samples]:
    """What the first clients of the first cohort hold; those whose data raise are the rounds' business."""
    found: dict[int, Samples] = {}
    for client in sample_cohort(config.seed, 1, config.clients, config.cohort):
        if len(found) < count:
            with suppress(Exception):
                found[client] = population.train(client)
    return found or {-1: example_samples(population)}


def _timed(call: Callable[[], object]) -> float:
    """The shortest of three calls, or of fewer when they take long; the first one warms up."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
        if sum(taken) > 0.4:
            break
    return min(taken)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
