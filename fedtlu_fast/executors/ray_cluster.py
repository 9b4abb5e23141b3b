"""Imports Ray, which is an extra, joins a cluster, and sorts Ray's errors."""

from __future__ import annotations

import logging
import os
import signal
import socket
import textwrap
from math import ceil, floor

from fedtlu_fast.errors import BackendUnavailableError

# Read while Ray is imported. Else it would print to stdout what we warn of, and report to its makers.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
try:
    import ray
    from ray import exceptions as raised
except ImportError as error:
    raise BackendUnavailableError(
        f"executor ray: Ray cannot be imported ({error}). Install it: pip install 'fedtlu-fast[ray]'"
    ) from error

__all__ = ["FULL", "FULL_MESSAGE", "LOST", "join", "raised", "ray", "share_of_a_gpu", "why_lost"]

LOST = (raised.RayActorError, raised.ObjectLostError, raised.NodeDiedError, raised.OutOfMemoryError)
"""The worker, or the result that lay on its machine, is gone."""
FULL = (raised.ObjectStoreFullError, raised.OutOfDiskError)
FULL_MESSAGE = (
    "Ray's object store is full, and the disk too that it spills to. Free disk space, use fewer "
    "execution.workers, or start a Ray with more (ray start --head --object-store-memory=BYTES) for "
    "executor=ray:auto"
)


def join(address: str, cpus: int) -> None:
    """Starts Ray, or joins a cluster.

    Args:
        address: ``host:port`` of a cluster, ``auto`` for the one of this machine, empty to start Ray.
        cpus: the number of processors that a Ray that is started here may use.

    Raises:
        BackendUnavailableError: No cluster answers at this address, or Ray cannot be started.
    """
    cluster = {"address": address} if address else {"address": "local", "num_cpus": cpus}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address not in ("", "auto"):
            # Ray itself takes two minutes to find that nobody answers, and then ends the process.
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(**cluster, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"no cluster answers at {address}" if address else "it cannot be started here"
        raise BackendUnavailableError(
            f"executor ray: {problem} ({error}). Use ray:HOST:PORT of a running cluster, ray:auto for this "
            f"machine's, or ray to start one"
        ) from error
    finally:
        # Ray's own ends what it has started; a caller's may do better.
        if handler not in (None, signal.SIG_DFL, signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, handler)


def share_of_a_gpu(workers: int, gpus: int) -> float:
    """Returns each worker's share of a GPU, so that all find room; Ray counts in ten-thousandths."""
    return floor(1e4 / ceil(workers / gpus)) / 1e4


def why_lost(error: Exception) -> str:
    """Returns Ray's reason for the end of a worker, shortened."""
    return textwrap.shorten(str(error).rpartition("Worker exit detail: ")[2], 250)
