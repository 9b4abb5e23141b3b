"""How clients are trained where the settings leave it open: a rule on model and settings.

It decides the last bits of a result, for clients trained together are summed in another order than one after
another, and C++ rounds otherwise than PyTorch. So the same settings give the same way on every machine:
neither a clock nor the number of cores has a say. The limits are where the ways were equally fast on two
cores of an x86-64 server (see `docs/results/scaling.md`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fedtlu_fast.build.fits import asked_of_engine
from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.clients.compiled import CannotCompileError, CompiledTrainer
from fedtlu_fast.clients.saved_bytes import saved_bytes
from fedtlu_fast.clients.trainer import Want
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import CannotVectorizeError, VectorizedTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.costs.flops import backward_flops
from fedtlu_fast.data.population import Population, example_samples
from fedtlu_fast.layout import ParameterLayout

MOST_AT_ONCE = 256
"""More clients at once are hardly faster, and leave less for others to do."""
BUDGET = 512 * 2**20
"""Bytes that the clients trained at once may take in one worker."""
SHARES, FEWEST = 4, 8
"""A cohort is cut into so many parts for workers to share, unless they have fewer clients than `FEWEST`."""
WORTH = 4
"""So many clients at once, at least, make up for what it costs to train them together."""
MOST_COMPILED = 40e6
"""FLOPs of a step's backward pass up to which the compiled kernel is clearly faster than PyTorch."""
SMALL = {"cpu": 1e6, "cuda": 60e6}
"""Work of a step's backward pass for each tensor of parameters, up to which PyTorch's overhead outweighs it.

Measured on a CPU; for a GPU reckoned from its speed and the time that a kernel takes to start."""
WORK_OF_A_PARAMETER = 64
"""FLOPs that take as long as the passes over one parameter, its gradient and its update."""

COUNTED = 2
"""Samples whose FLOPs are counted, which takes as long as a step of them; BatchNorm needs two."""


@dataclass(frozen=True)
class Way:
    """A way to train clients.

    Attributes:
        engine: torch or compiled.
        clients_per_batch: clients that a worker trains at once, or in one call.
        reason: why it was taken, in words.
    """

    engine: str
    clients_per_batch: int
    reason: str


def way_of(config: RunConfig, population: Population, trainer: LocalTrainer, steps: ClientSteps) -> Way:
    """The way for this model and these settings.

    Args:
        config: of the run; `execution.clients_per_batch` is not set, and `execution.engine` is not compiled.
        population: who holds what; only the global test is looked at.
        trainer: of single clients.
        steps: what clients do around training.
    """
    wanted = {asked.want for asked in asked_of_engine(config, steps)}
    if "each vector" in wanted:
        return Way("torch", 1, "its rule wants every client on its own")
    if "own model" in wanted:
        return Way("torch", 1, "clients start from models of their own")
    if config.execution.compile != "none":
        return Way("torch", 1, f"execution.compile={config.execution.compile}")
    flops = _step_flops(config, population, trainer)
    small = config.execution.engine is None and flops <= MOST_COMPILED
    if small and _compiles(config, population, trainer, wanted):
        return Way("compiled", shared_out(config, steps), "a small perceptron")
    most = shared_out(config, steps)
    if most < WORTH:
        return Way("torch", 1, "the cohort is too small to train several at once")
    work = flops + WORK_OF_A_PARAMETER * trainer.layout.size
    if work > SMALL[trainer.params.device.type] * len(trainer.layout.layers):
        return Way("torch", 1, "a step is too long to gain from training several at once")
    reason = _not_vectorized(config, population, trainer)
    if reason is not None:
        return Way("torch", 1, f"several at once: impossible, {reason}")
    clients_per_batch = min(most, most_clients_per_batch(config, population, trainer))
    if clients_per_batch < WORTH:
        return Way("torch", 1, "there is no room for several at once")
    return Way("torch", clients_per_batch, "a small model")


def most_clients_per_batch(config: RunConfig, population: Population, trainer: LocalTrainer) -> int:
    """How many clients fit into `BUDGET` at once, `MOST_AT_ONCE` at most and 2 at least."""
    activations = saved_bytes(trainer.task, example_samples(population), config.training.batch_size)
    each = matrix_bytes(trainer.layout, config) + 2 * activations
    return max(2, min(MOST_AT_ONCE, BUDGET // each))


def matrix_bytes(layout: ParameterLayout, config: RunConfig) -> int:
    """Bytes of one client's rows: parameters, gradients twice, one temporary, and the optimizer's state."""
    return 4 * layout.size * (4 + config.training.optimizer.vectors)


def shared_out(config: RunConfig, steps: ClientSteps) -> int:
    """Clients that are trained together, so that several workers have something to do.

    A robust rule wants each on its own.
    """
    if not config.aggregation.rule.takes_sums or steps.needs_each:
        return 1
    return min(MOST_AT_ONCE, max(-(-config.cohort // SHARES), min(config.cohort, FEWEST)))


def _step_flops(config: RunConfig, population: Population, trainer: LocalTrainer) -> float:
    """Of a step's backward pass."""
    example = example_samples(population)
    size = min(len(example), config.training.batch_size)
    # The first samples do, at the length to which the whole batch is trimmed: FLOPs go by samples.
    batch = tuple(part[:COUNTED] for part in trainer.task.trim(example.take(np.arange(size))))
    return size * backward_flops(trainer.task, trainer.layout, batch, range(len(trainer.layout.blocks)))


def _compiles(
    config: RunConfig, population: Population, trainer: LocalTrainer, wanted: Collection[Want]
) -> bool:
    if config.execution.precision != "float32":
        return False
    parts = (trainer.task, trainer.layout, trainer.local, config.seed)
    try:
        engine = CompiledTrainer(*parts, example_samples(population))
    except CannotCompileError:
        return False
    return not any(engine.supports(want) for want in wanted)


def _not_vectorized(config: RunConfig, population: Population, trainer: LocalTrainer) -> str | None:
    """Why the model cannot be trained for several clients at once; None: it can."""
    parts = (trainer.task, trainer.layout, trainer.local, config.seed)
    try:
        VectorizedTrainer(*parts, 1, example_samples(population), config.execution.precision)
    except CannotVectorizeError as error:
        return str(error)
    return None
