"""From settings to who takes part."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Indices, Population, sizes_of
from fedtlu_fast.errors import InputError
from fedtlu_fast.simulation.participation.availability import Availability, DutyCycle, Trace, load_trace
from fedtlu_fast.simulation.participation.participation import Participation
from fedtlu_fast.simulation.participation.samplers import (
    FixedSampler,
    LossSampler,
    Sampler,
    SizeSampler,
    UniformSampler,
)


def make_participation(config: RunConfig, population: Population) -> Participation:
    """Who takes part, as the settings say.

    Args:
        config: of the run.
        population: asked for all sizes if the sampler goes by them, and for nothing else.

    Raises:
        InputError: the population cannot tell sizes, or the trace cannot be used.
    """
    given = config.participation
    availability = _availability(config)
    identity = {"trace_sha256": availability.sha256} if isinstance(availability, Trace) else {}
    sampler = _sampler(config, population)
    return Participation(given, config.seed, config.cohort, sampler, availability, identity)


def _availability(config: RunConfig) -> Availability | None:
    given = config.participation
    if given.trace is not None:
        return load_trace(Path(given.trace), config.clients, config.rounds)
    if given.duty < 1:
        return DutyCycle(config.seed, config.clients, given.period, round(given.duty * given.period))
    return None


def _sampler(config: RunConfig, population: Population) -> Sampler:
    given = config.participation
    if given.sampler == "uniform":
        return UniformSampler(config.seed, config.clients)
    if given.sampler == "fixed":
        return FixedSampler(config.seed, config.clients, given.members)
    by_size = SizeSampler(config.seed, _sizes(config, population))
    if given.sampler == "size":
        return by_size
    drawn = given.drawn(config.cohort)
    return LossSampler(by_size, given.candidates or min(2 * drawn, config.clients))


def _sizes(config: RunConfig, population: Population) -> Indices:
    field, name = "participation.sampler", config.participation.sampler
    sizes = sizes_of(population, name)[: config.clients]
    if (sizes < 0).any():
        client = int(np.argmin(sizes))
        raise InputError(field, name, f"clients that hold something; client {client} holds {sizes[client]}")
    return sizes
