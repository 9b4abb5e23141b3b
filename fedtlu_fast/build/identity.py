"""What a resumed run must have in common with the run that it goes on with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.executors.executor import ExecutorPart
from fedtlu_fast.models.lora import frozen_identity
from fedtlu_fast.own_code import own_code
from fedtlu_fast.own_origin import is_known
from fedtlu_fast.own_values import described
from fedtlu_fast.runs.settings import StoredSettings
from fedtlu_fast.simulation.server import Server
from fedtlu_fast.simulation.state import ServerState


def identity_of(
    config: RunConfig, settings: StoredSettings, server: Server, first: ServerState
) -> dict[str, str]:
    """Digests of settings, data, frozen weights, trace and the user's code, by what they are of.

    Args:
        config: of the run; holds the parts whose code counts.
        settings: the same as the run's directory holds them.
        server: of the run.
        first: the state before round 1; its weights count where a `Federation` brought the model.
    """
    own = {} if config.own is None else {"start_sha256": first.sha256(), **_buffers(server.trainer)}
    # Who trains does not change the result: a run may go on with another executor, or other code of its own.
    parts = [part for part in config.parts() if not isinstance(part, ExecutorPart)]
    code = own_code(parts, server.trainer.task.model)
    modules = {name.partition(":")[0] for name in code}
    return {
        "config_sha256": settings.sha256({name for name in modules if not is_known(name)}),
        "data_sha256": server.population.fingerprint,
        **frozen_identity(server.trainer.task.model),
        **own,
        **server.participation.identity,
        **_by_name(code),
    }


def _buffers(trainer: LocalTrainer) -> dict[str, str]:
    """Returns a digest of the buffers that checkpoints lack, such as masks; it is empty if there are none."""
    if not trainer.other_buffers:
        return {}
    text = "".join(f"{name}{described(value)}" for name, value in trainer.other_buffers.items())
    return {"buffers_sha256": hashlib.sha256(text.encode()).hexdigest()}


def _by_name(code: Mapping[str, str]) -> dict[str, str]:
    """Returns the digests of the user's code by the names of its pieces, without their modules.

    A module that runs as a script is called ``__main__``; when it is imported, it has its own name.
    """
    found: dict[str, str] = {}
    for place, digest in code.items():
        name = f"code of {place.partition(':')[2]}"
        found[name] = (
            digest if name not in found else hashlib.sha256((found[name] + digest).encode()).hexdigest()
        )
    return found
