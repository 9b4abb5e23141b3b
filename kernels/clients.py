"""Makes the table of an aggregation's clients on the device: the address and the weight of each vector.

Tables are cached like those of `tiles`: a round whose vectors have the addresses and weights of an earlier
round sends nothing, and a CUDA graph can be captured.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.kernels.pair_sums import split
from fedtlu_fast.kernels.upload import Upload, upload

CACHED_TABLES = 16

_Key = tuple[torch.device, bytes]
_cache: deque[tuple[_Key, Upload]] = deque(maxlen=CACHED_TABLES)
# A CUDA graph holds the addresses of the tables it was captured with, so these tables are never freed.
_captured: dict[int, Upload] = {}


def table_of(clients: Sequence[Tensor], weights: Tensor | None = None, scale: int | None = None) -> Tensor:
    """[K], int64, on the clients' device: their addresses.

    With `weights` [2 K]: then the bits of K float64 weights. With `scale` [3 K]: then each weight as two
    float32 (`pair_sums.split`).

    Args:
        clients: K contiguous vectors on one device.
        weights: [K], float64, on the CPU; None for the addresses alone.
        scale: see `pair_sums.scale_of`; None if the sums are in float64, or without weights.

    Raises:
        RuntimeError: a CUDA graph is being captured and the table is not on the device yet.
    """
    device = clients[0].device
    addresses = np.array([client.data_ptr() for client in clients], dtype=np.int64)
    parts = [addresses]
    if weights is not None:
        parts.append(weights.numpy().view(np.int64))
        if scale is not None:
            parts.append(split(weights.numpy(), scale).view(np.int64).ravel())
    table = np.concatenate(parts)
    key = (device, table.tobytes())
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    for known, sent in tuple(_cache):  # a copy: another thread may add to it
        if known == key:
            if capturing:  # capture began with a synchronisation: the copy is over
                _captured[id(sent)] = sent
            else:
                sent.wait()
            return sent.values
    if capturing:
        raise RuntimeError(
            "clients seen for the first time in a CUDA graph capture: run once before capturing"
        )
    sent = upload(table, device)
    _cache.appendleft((key, sent))
    return sent.values
