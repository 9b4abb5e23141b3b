"""Small federations whose clients train or send chosen blocks, and the same rounds computed by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.build.executor import make_executor
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.build.server import make_server
from fedtlu_fast.client_steps import personal, recycling
from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.part_memory import recall
from fedtlu_fast.simulation.client_choice import PROBES
from fedtlu_fast.simulation.round import OPTIMIZER, RoundRecord, run_round
from fedtlu_fast.simulation.server import initial_state
from fedtlu_fast.simulation.state import ServerState

OPEN, HEAD = (0, 1, 2, 3), 4
"""Blocks of the model: four like blocks, among which clients choose, and a head that is always trained."""
BLOCKS = 5
SELECTORS: dict[str, dict[str, Any]] = {
    "full": {"frozen": "2"},
    "random": {"budget": 1},
    "top": {"budget": 2},
    "bottom": {"budget": 1},
    "both": {"budget": 2},
    "gradnorm": {"budget": 1},
    "rgn": {"budget": 2, "probe_batches": 2},
    "snr": {"budget": 1},
    "strategic": {"budget": 2, "lam": 0.02},
    "agreeing": {"budget": 2, "kept": 0.8},
    "fedpart": {},
    "fedlp": {"probability": 0.4, "always": "none"},
    "drift": {"budget": 1},
    "oracle": {"budget": 1},
}
"""Client selectors with settings under which each leaves blocks out; fedluar has tests of its own."""


def chosen_by(name: str, **more: Any) -> dict[str, Any]:
    return {"selector": name, **SELECTORS.get(name, {}), **more}


def settings_of(selection: Mapping[str, Any], /, **over: Any) -> RunConfig:
    """Returns settings of a federation of twelve clients, five a round; `over` replaces or extends them."""
    tree: dict[str, Any] = {
        "task": "classification",
        "clients": 12,
        "cohort": 5,
        "rounds": 4,
        "data": {
            "source": "synthetic",
            "classes": 4,
            "synthetic": {"features": 6, "fewest": 4, "most": 15},
        },
        "model": {"hidden": [6, 6, 6, 6]},
        "training": {"lr": 0.3, "batch_size": 4, "momentum": 0.5, "weight_decay": 0.01},
        "selection": {"selector": "full"},
        "client_selection": dict(selection),
        "evaluation": {
            "trained_clients": 0,
            "local_clients": 3,
            "local_every": 100,
            "every": 100,
            "local_held_out": 0.5,  # oracle needs it
        },
        "execution": {"executor": "serial", "clients_per_batch": 1, "engine": "torch"},
    }
    for key, value in over.items():
        tree[key] = {**tree[key], **value} if isinstance(tree.get(key), dict) else value
    return parse_config(tree)


class Federation:
    """Runs the rounds of a federation one by one."""

    def __init__(self, config: RunConfig, wrap: Any = None) -> None:
        parts = make_parts(config)
        self.config, self.trainer, self.layout = config, parts.trainer, parts.trainer.layout
        self.population = wrap(parts.population) if wrap else parts.population
        self.state = initial_state(self.layout, self.trainer.task.model)
        # Numbers whose bits any extra operation would change.
        self.state.params[::7] = -0.0
        self.executor = make_executor(config, self.population, self.trainer, parts.steps)
        self.server = make_server(
            config, self.layout, self.population, self.trainer, self.executor, parts.steps
        )

    @property
    def personal(self) -> Mapping[int, Any]:
        """Returns the personal numbers of each client."""
        return personal_of(self.state)

    def round(self) -> tuple[ServerState, RoundRecord]:
        """Runs the next round; returns the state before it and its record."""
        before = self.state
        self.state, record = run_round(self.server, before)
        return before, record

    def alone(self, before: ServerState, client: int, blocks: Sequence[int] | None) -> NDArray[np.float64]:
        """Returns the change [P] of a client that trains these blocks."""
        own = self.population.train(client)
        update = self.trainer.train(before.params, before.buffers, own, before.round + 1, client, blocks)
        return (update.params.double() - before.params.double()).numpy()

    def samples(self, client: int) -> int:
        return len(self.population.train(client))

    def places(self, block: int) -> NDArray[np.bool_]:
        """Returns [P] bool, true at the numbers of a block."""
        found = np.zeros(self.layout.size, np.bool_)
        for run in self.layout.runs([block]):
            found[run] = True
        return found

    def mean_by_hand(
        self,
        before: ServerState,
        sent: Mapping[int, Sequence[int]],
        changes: Mapping[int, NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        """Returns [P] float64, each block's weighted mean over the clients that sent it; 0 if none did."""
        found = np.zeros(self.layout.size)
        for block in range(BLOCKS):
            senders = [client for client, blocks in sent.items() if block in blocks]
            weights = [self.samples(client) for client in senders]
            at = self.places(block)
            for client, weight in zip(senders, weights, strict=True):
                found[at] += weight / sum(weights) * changes[client][at]
        return found

    def kept(self, before: Tensor, blocks: Sequence[int]) -> bool:
        """Tells whether these blocks of the global model have kept their bits."""
        after = self.state.params
        return all(same_bits(after[run], before[run]) for run in self.layout.runs(blocks))


def same_bits(one: Tensor, two: Tensor) -> bool:
    return torch.equal(one.view(torch.int32), two.view(torch.int32))


class Wrapped:
    """A population that calls a function whenever a client's samples are read."""

    def __init__(self, inner: Any, happen: Any) -> None:
        self.inner, self.happen = inner, happen

    clients = property(lambda self: self.inner.clients)
    test = property(lambda self: self.inner.test)
    fingerprint = property(lambda self: self.inner.fingerprint)

    def train(self, client: int) -> Any:
        return self.happen(client, self.inner.train(client))

    def held_out(self, client: int) -> Any:
        return self.inner.held_out(client)

    def to(self, device: str) -> Any:
        return self


def personal_of(state: ServerState) -> Mapping[int, Any]:
    """Returns the personal numbers of each client."""
    return recall(state.memory, personal.PART).clients.get(personal.VALUES, {})


def last_change(state: ServerState) -> Any:
    """Returns the change of the last round from the run's memory."""
    return recall(state.memory, recycling.PART).server.get(recycling.CHANGE)


def momentum_of(state: ServerState) -> Mapping[str, Any]:
    """Returns the server optimizer's vectors."""
    return recall(state.memory, OPTIMIZER).server


def probes_of(state: ServerState) -> dict[int, tuple[int, Any]]:
    """Returns the round and the gains of each client whose probe the memory holds."""
    held = recall(state.memory, PROBES).clients
    return {client: (held["round"][client], gains) for client, gains in held.get("gains", {}).items()}
