"""A federation before its first round, and what a resumed run must have in common with it."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import NamedTuple

import torch

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.splits import Origin
from fedtlu_fast.lora import frozen_identity
from fedtlu_fast.ops.dispatch import check_device, resolve
from fedtlu_fast.own_code import own_code
from fedtlu_fast.simulation.executors import choose, make_executor
from fedtlu_fast.simulation.parts import make_parts
from fedtlu_fast.simulation.server import Server, initial_state, make_server
from fedtlu_fast.simulation.state import ServerState

logger = logging.getLogger("fedtlu_fast")


class Founded(NamedTuple):
    """A federation before its first round.

    Attributes:
        config: its settings, with the executor settled.
        note: which executor was chosen and why; empty when it was named.
        origin: which entries of the data's source were read as what.
        server: what its rounds share.
        state: the model as it is before round 1.
    """

    config: RunConfig
    note: str
    origin: Origin | None
    server: Server
    state: ServerState


def found(config: RunConfig) -> Founded:
    """Reads the data, builds the model, chooses the executor and starts it.

    Raises:
        InputError: settings, data, model and device do not fit together.
    """
    check_device("device", config.device)
    resolve(config.backend, torch.device(config.device).type)
    parts = make_parts(config)
    population, trainer = parts.population, parts.trainer
    state = initial_state(trainer.layout, trainer.task.model)
    config, note = choose(config, population, trainer, parts.steps)
    if note:
        logger.info(note)
    executor = make_executor(config, population, trainer, parts.steps)
    try:
        server = make_server(config, trainer.layout, population, trainer, executor, parts.steps)
    except BaseException:
        executor.close()
        raise
    return Founded(config, note, parts.origin, server, state)


def identity_of(server: Server, first: ServerState) -> dict[str, str]:
    """What a resumed run must share: digests of settings, data, frozen weights, trace and the user's code.

    Args:
        server: of the run.
        first: the state before round 1.
    """
    own = {} if server.config.own is None else {"start_sha256": first.sha256()}
    code = own_code(server.config.parts())
    return {
        "config_sha256": _settings_sha256(server.config),
        "data_sha256": server.population.fingerprint,
        **frozen_identity(server.trainer.task.model),
        **own,
        **server.participation.identity,
        **{f"code of {name}": digest for name, digest in code.items()},
    }


def _settings_sha256(config: RunConfig) -> str:
    """Of the settings that decide the result.

    Who trains, how often the run is saved, and how many rounds it has may change.
    """
    settled = config.model_dump(mode="json", exclude={"checkpoint", "rounds"})
    settled["execution"] = {
        name: settled["execution"][name]
        for name in ("clients_per_batch", "engine", "compile", "precision", "lanes")
    }
    return hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()
