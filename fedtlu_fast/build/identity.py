"""What a resumed run must have in common with the run that it goes on with."""

from __future__ import annotations

from fedtlu_fast.config import RunConfig
from fedtlu_fast.models.lora import frozen_identity
from fedtlu_fast.own_code import own_code
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
    own = {} if config.own is None else {"start_sha256": first.sha256()}
    code = own_code(config.parts())
    return {
        "config_sha256": settings.sha256,
        "data_sha256": server.population.fingerprint,
        **frozen_identity(server.trainer.task.model),
        **own,
        **server.participation.identity,
        **{f"code of {name}": digest for name, digest in code.items()},
    }
