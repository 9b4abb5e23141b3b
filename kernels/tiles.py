"""Makes the tile table: layers of any number and size are cut into one piece per GPU program.

A tile is at most `TILE_BYTES` of one layer, or as much as a kernel asks for. Its lane 0 lies on a 16-byte
boundary, so that whole tiles are read with 16-byte loads wherever the layer itself starts; the lanes of its
first tile that come before the layer are masked off. A table depends on where the layers lie, not on their
contents, so it is built once and kept: the next round finds it on the device.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.kernels.upload import Array, Upload, upload

ALIGNMENT = 16
"""The number of bytes of the widest load."""

# 64 KiB: eight steps of 8 KiB for four warps (layer_stats.py). Large enough that table and partial
# results cost about 0.1% of the traffic; small enough that the 124M parameters of GPT-2 in float32
# still make 7,600 tiles, some 60 for each of Hopper's 132 SMs. Chosen by reasoning, not yet measured.
TILE_BYTES = 65536

CACHED_TABLES = 16


@dataclass(frozen=True)
class Layers:
    """Where layers lie, seen from an origin; int64 in NumPy, which wakes no thread pool for short arrays.

    Attributes:
        starts: [L], elements from the origin to the layer's first.
        lengths: [L], elements.
        columns: [L], the column of each layer's results; None for 0 .. L - 1.
    """

    starts: Array
    lengths: Array
    columns: Array | None = None

    def same_as(self, other: Layers) -> bool:
        """Tells whether the contents are equal."""
        pairs = ((self.starts, other.starts), (self.lengths, other.lengths), (self.columns, other.columns))
        return all(np.array_equal(ours, theirs) for ours, theirs in pairs)

    def copy(self) -> Layers:
        """Returns a copy that later changes of the caller's tensors cannot reach."""
        columns = None if self.columns is None else self.columns.copy()
        return Layers(self.starts.copy(), self.lengths.copy(), columns)


@dataclass(frozen=True)
class Tiles:
    """The table on the device: T tiles of L layers, int64, views of one buffer.

    Attributes:
        upload: the buffer.
        starts: [T], elements from the origin to lane 0; may be negative.
        firsts: [T], the first lane that belongs to the layer; 0 except in a layer's first tile.
        stops: [T], one past the last lane that belongs to the layer.
        bounds: [L + 1], tiles of layer l are ``bounds[l] .. bounds[l + 1] - 1``.
        columns: [L], the column of each layer's results.
        most: the largest number of tiles of a layer.
    """

    upload: Upload
    starts: Tensor
    firsts: Tensor
    stops: Tensor
    bounds: Tensor
    columns: Tensor
    most: int

    @property
    def count(self) -> int:
        """Returns T, the number of tiles."""
        return self.starts.numel()


_Key = tuple[torch.device, int, int, int]
_cache: deque[tuple[_Key, Layers, Tiles]] = deque(maxlen=CACHED_TABLES)
# A CUDA graph holds the addresses of the tables it was captured with, so these tables are never freed.
_captured: dict[int, Tiles] = {}


def in_step(tensor: Tensor, origin: Tensor) -> bool:
    """Tells whether `tensor` lies on a 16-byte boundary at every index at which `origin` does.

    Args:
        tensor: contiguous, its elements no narrower than those of `origin`.
        origin: contiguous.
    """
    lead = origin.data_ptr() % ALIGNMENT // origin.element_size()
    return (tensor.data_ptr() - lead * tensor.element_size()) % ALIGNMENT == 0


def tiles_of(layers: Layers, origin: Tensor, tile_bytes: int | None = None) -> Tiles:
    """Returns the table of these layers on the device of `origin`, from the cache when they lie as before.

    Args:
        layers: where they lie.
        origin: the tensor from whose first element `layers.starts` count, of the layers' dtype.
        tile_bytes: the largest size of a tile; None for `TILE_BYTES`.

    Raises:
        RuntimeError: a CUDA graph is being captured and the table is not on the device yet.
    """
    size = origin.element_size()
    lead = origin.data_ptr() % ALIGNMENT // size
    tile_bytes = TILE_BYTES if tile_bytes is None else tile_bytes
    key = (origin.device, size, lead, tile_bytes)
    capturing = origin.is_cuda and torch.cuda.is_current_stream_capturing()
    for known, where, tiles in tuple(_cache):  # a copy: another thread may add to it
        if known == key and where.same_as(layers):
            if capturing:  # capture began with a synchronisation: the copy is over
                _captured[id(tiles)] = tiles
            else:
                tiles.upload.wait()
            return tiles
    if capturing:
        raise RuntimeError(
            "layers seen for the first time in a CUDA graph capture: run once before capturing"
        )
    tiles = build(layers, lead, size, origin.device, tile_bytes)
    _cache.appendleft((key, layers.copy(), tiles))
    return tiles


def build(layers: Layers, lead: int, size: int, device: torch.device, tile_bytes: int | None = None) -> Tiles:
    """Cuts every layer into tiles.

    Args:
        layers: where they lie.
        lead: elements between the last 16-byte boundary and the origin.
        size: bytes of an element.
        device: where the table goes.
        tile_bytes: see `tiles_of`.
    """
    tile = (TILE_BYTES if tile_bytes is None else tile_bytes) // size
    leads = (layers.starts + lead) % (ALIGNMENT // size)  # [L]
    ends = np.where(layers.lengths > 0, leads + layers.lengths, 0)  # [L], from lane 0 of the first tile
    pieces = (ends + tile - 1) // tile  # [L]
    bounds = np.zeros(len(pieces) + 1, dtype=np.int64)
    np.cumsum(pieces, out=bounds[1:])
    total = int(bounds[-1])

    layer = np.repeat(np.arange(len(pieces)), pieces)  # [T]
    begun = (np.arange(total) - bounds[layer]) * tile  # [T], lanes of the layer in earlier tiles
    starts = (layers.starts - leads)[layer] + begun
    firsts = np.where(begun == 0, leads[layer], 0)
    stops = np.minimum(ends[layer] - begun, tile)
    columns = np.arange(len(pieces)) if layers.columns is None else layers.columns

    parts = (starts, firsts, stops, bounds, columns)
    sent = upload(np.concatenate(parts), device)
    most = int(pieces.max(initial=0))
    return Tiles(sent, *sent.values.split([len(part) for part in parts]), most=most)
