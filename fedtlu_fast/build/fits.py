"""Checks whether the engine that trains clients supports the parts of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.client_steps.personal import Personal
from fedtlu_fast.client_steps.sending import SendChosen
from fedtlu_fast.client_steps.step import wants
from fedtlu_fast.clients.trainer import Trainer, Want
from fedtlu_fast.config import RunConfig
from fedtlu_fast.errors import InputError
from fedtlu_fast.executors.parts import Vectorized


@dataclass(frozen=True)
class Asked:
    """Holds one demand of a part of a run on the engine.

    Attributes:
        want: the demand.
        part: the part, as messages name it.
        field: the setting that names the part.
        value: the value of that setting.
        instead: another value of that setting without this demand.
    """

    want: Want
    part: str
    field: str
    value: str
    instead: str = "another"


def asked_of_engine(config: RunConfig, steps: ClientSteps) -> Iterator[Asked]:
    """Yields the demands of the parts of a run on the engine that trains the clients."""
    if not config.aggregation.rule.takes_sums:
        name = config.rule_name
        yield Asked("each vector", f"aggregation.rule={name}", "aggregation.rule", name, "mean")
    chosen = config.client_selection
    kinds = {id(threat.step): threat.name_of("kind") for threat in config.threats}
    for step in steps.steps:
        field, value = "client_steps", step.name
        part = f"client_steps={value}"
        if isinstance(step, Personal):
            field, value, part = (
                "client_selection.personal",
                str(chosen.personal),
                "client_selection.personal",
            )
        elif isinstance(step, SendChosen):
            field, value = "client_selection.selector", chosen.name_of("selector")
            part = f"{field}={value}"
        elif id(step) in kinds:
            field, value = "threats", kinds[id(step)]
            part = f"threats={value}"
        for want in wants(step):
            yield Asked(want, part, field, value)


def check_engine(config: RunConfig, steps: ClientSteps, engine: Trainer, clients_per_batch: int) -> None:
    """Raises an error unless an engine supports the parts of a run.

    Args:
        config: the settings of the run.
        steps: the client steps of the run.
        engine: the engine that trains the clients.
        clients_per_batch: the number of clients that the engine trains in one call.

    Raises:
        InputError: The engine does not support a part; the error's field is the setting to change.
    """
    given = config.execution
    for asked in asked_of_engine(config, steps):
        reason = engine.supports(asked.want, clients_per_batch)
        if reason is None:
            continue
        if asked.want == "each vector":
            expected = f"{asked.instead}, because {reason}"
            raise InputError(asked.field, asked.value, expected, "Use execution.clients_per_batch=1.")
        expected = f"with {asked.part}: {reason}"
        if given.engine == "compiled":
            raise InputError("execution.engine", "compiled", f"torch {expected}")
        if given.compile != "none":
            raise InputError("execution.compile", given.compile, f"none {expected}")
        if isinstance(given.executor, Vectorized):
            raise InputError("execution.executor", "vectorized", f"another {expected}")
        raise InputError("execution.clients_per_batch", clients_per_batch, f"1 {expected}")
