"""Remembers how long a client takes, so that ``auto`` does not measure the same job again.

What is remembered only says who trains clients, which does not change a result's bits. Where nothing can be
kept (``FEDTLU_CACHE=/dev/null`` for instance), or what is kept is damaged, a run measures.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
import time
from contextlib import suppress
from math import isfinite
from pathlib import Path

from fedtlu_fast.build.way import Way
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Population
from fedtlu_fast.environment import environment_facts
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.machine import cores
from fedtlu_fast.simulation.pretraining import cache_directory

DAYS = 30
"""The age from which on a measurement is made again, because a machine may have been busy."""


def place_of(config: RunConfig, population: Population, layout: ParameterLayout, way: Way) -> Path | None:
    """Returns the file for this job: settings, data, model, way, machine and versions.

    Returns:
        None if there is no cache directory, or if the job is not known by its settings: a `Federation`'s, or
        one with a part that has no name.
    """
    folder = cache_directory()
    if folder is None or config.own is not None:
        return None
    try:
        settings = config.deciding()
    except (InputError, ValueError):  # pydantic's errors are ValueErrors
        return None
    job = (settings, population.fingerprint, layout.size, way.engine, way.clients_per_batch, config.threads)
    machine = (environment_facts(config.device), platform.node(), cores())
    known = json.dumps([job, machine], sort_keys=True, default=str)
    return folder / f"seconds-{hashlib.sha256(known.encode()).hexdigest()[:32]}.json"


def remembered(path: Path) -> float | None:
    """Returns the seconds that this file holds; None if there are none, or they are damaged or too old."""
    try:
        if time.time() - path.stat().st_mtime > DAYS * 24 * 3600:
            return None
        seconds = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(seconds, float) and isfinite(seconds) and seconds > 0:
        return seconds
    return None


def remember(path: Path, seconds: float) -> None:
    """Keeps the seconds, where that is possible; another run never reads half a file."""
    scratch = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(seconds), encoding="utf-8")
        scratch.replace(path)
    except OSError:
        with suppress(OSError):
            scratch.unlink()
