"""A federation before its first round, and what a resumed run must have in common with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.splits import Origin
from fedtlu_fast.models.lora import frozen_identity
from fedtlu_fast.own_code import own_code
from fedtlu_fast.simulation.server import Server
from fedtlu_fast.simulation.state import ServerState


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


def changed_settings(before: RunConfig, now: RunConfig) -> list[str]:
    """The settings that decide the result and differ, by their dotted names."""
    one, other = (dict(_flat(_settled(config), "")) for config in (before, now))
    return [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]


def _settings_sha256(config: RunConfig) -> str:
    return hashlib.sha256(json.dumps(_settled(config), sort_keys=True).encode()).hexdigest()


def _settled(config: RunConfig) -> dict[str, Any]:
    """The settings that decide the result.

    Who trains, how often the run is saved, and how many rounds it has may change.
    """
    settled = config.model_dump(mode="json", exclude={"checkpoint", "rounds"})
    settled["execution"] = {
        name: settled["execution"][name]
        for name in ("clients_per_batch", "engine", "compile", "precision", "lanes")
    }
    return settled


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
