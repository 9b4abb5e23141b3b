"""Makes a workload by its name."""

from __future__ import annotations

import functools
import importlib

from .cnn import CnnWorkload
from .gpt import GptWorkload
from .lora import LoraWorkload
from .lstm import LstmWorkload
from .mlp import MlpWorkload
from .protocol import Workload

KINDS: dict[str, type[Workload]] = {
    kind.name: kind for kind in (MlpWorkload, GptWorkload, CnnWorkload, LstmWorkload, LoraWorkload)
}


@functools.lru_cache(maxsize=1)
def workload(name: str, clients: int | None = None, cohort: int | None = None, seed: int = 0) -> Workload:
    """Returns the workload of this name; one per process, so that workers share its data.

    Args:
        name: one of `NAMES`.
        clients: number of clients; None: the workload's own.
        cohort: number of clients in a round; None: the workload's own.
        seed: of the model and of all data.

    Raises:
        ValueError: the cohort is larger than the federation.
    """
    default = KINDS[name].settings
    clients, cohort = clients or default.clients, cohort or default.cohort
    if cohort > clients:
        raise ValueError(f"a cohort of {cohort} cannot be drawn from {clients} clients")
    return KINDS[name](clients, cohort, seed)


def import_model(name: str) -> None:
    """Imports the packages of a workload's model, so that their time counts as import and not as building."""
    for package in KINDS[name].packages:
        importlib.import_module(package)
