"""Reads the next clients' samples in a thread while a client trains, for data that are not on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np
from torch import Tensor

from fedtlu_fast.data.listed import Listed
from fedtlu_fast.data.population import (
    Batch,
    Indices,
    Pool,
    Population,
    Samples,
    on_device,
    sizes_of,
)

AHEAD = 8
"""Largest number of clients whose samples wait for their training."""


class AheadPopulation:
    """Sends each client's samples to the model's device, ahead of the client's training."""

    def __init__(self, inner: Population, device: str) -> None:
        """Keeps the population; the thread starts when clients are announced.

        Args:
            inner: the population whose samples are in the host's memory, in files, or made when needed.
            device: the device to which samples are sent.
        """
        self.inner, self.device = inner, device
        self.test: Pool = on_device(inner.test, device)
        self._reader: ThreadPoolExecutor | None = None
        self._coming: dict[int, Future[Samples]] = {}
        self._announced: list[int] = []
        # Clients may look at what they keep back between others' trainings; data need not bear two readers.
        self._reading = Lock()

    @property
    def clients(self) -> int:
        """See `Population`."""
        return self.inner.clients

    @property
    def fingerprint(self) -> str:
        """See `Population`."""
        return self.inner.fingerprint

    def announce(self, clients: Sequence[int]) -> None:
        """Replaces the list of clients that train next, in this order, and begins to read their samples."""
        self._coming.clear()
        self._announced = list(reversed(clients))
        self._fill()

    def train(self, client: int) -> Samples:
        """See `Population`. An error that the thread met while reading these samples is raised here."""
        coming = self._coming.pop(client, None)
        self._fill()
        return self._read(client) if coming is None else coming.result()

    def sizes(self) -> Indices:
        """See `KnowsSizes`."""
        return sizes_of(self.inner)

    def held_out(self, client: int) -> Samples:
        """See `Population`."""
        with self._reading:
            return self._moved(self.inner.held_out(client))

    def to(self, device: str) -> AheadPopulation:
        """See `Population`."""
        return AheadPopulation(self.inner, device)

    def _fill(self) -> None:
        while self._announced and len(self._coming) < AHEAD:
            if self._reader is None:
                self._reader = ThreadPoolExecutor(1, "fedtlu-ahead")
            client = self._announced.pop()
            self._coming[client] = self._reader.submit(self._read, client)

    def _read(self, client: int) -> Samples:
        with self._reading:
            return self._moved(self.inner.train(client))

    def _moved(self, samples: Samples) -> Samples:
        if isinstance(samples.pool, Listed):
            pool = samples.pool.part(samples.rows).loaded().on(self.device)
            return Samples(pool, np.arange(len(samples)))
        batch: Batch = tuple(self._sent(part) for part in samples.all())
        return Samples(batch, np.arange(len(samples)))

    def _sent(self, part: Tensor) -> Tensor:
        if self.device.startswith("cuda"):
            # A copy from pinned memory is queued on the device, and this thread can read on.
            return part.pin_memory().to(self.device, non_blocking=True)
        return part.to(self.device)
