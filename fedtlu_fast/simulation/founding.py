"""A federation before its first round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedtlu_fast.runs.settings import StoredSettings
from fedtlu_fast.simulation.run_files import Saving
from fedtlu_fast.simulation.server import Server
from fedtlu_fast.simulation.state import ServerState


@dataclass(frozen=True)
class Founded:
    """A federation before its first round.

    Attributes:
        settings: of the run, as its directory holds them, with the executor settled.
        note: which executor was chosen and why; empty when it was named.
        threads: CPU threads of the run; None: torch decides.
        saving: when checkpoints are written.
        identity: digests that a resumed run must share, by what they are of.
        environment: where the run computes, by name.
        data: as the summary has them: source, fingerprint and which entries were read as what.
        server: what its rounds share.
        state: the model as it is before round 1.
    """

    settings: StoredSettings
    note: str
    threads: int | None
    saving: Saving
    identity: Mapping[str, str]
    environment: Mapping[str, str]
    data: Mapping[str, Any]
    server: Server
    state: ServerState
