"""Computes the statistics of every layer's change, reading both states a piece at a time.

A few threads read pieces and compute their moments, so that the memory in use depends neither on the model
nor on its largest tensor. The pieces of a tensor have a fixed size. Differences are taken in float64, and the
moments of the pieces are combined in float64 in a fixed order (Chan, Golub and LeVeque 1979), so that the
result is that of the whole tensor up to the last digits, and has the same bits for any number of threads.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from fedtlu_fast.changes.pairing import Pair
from fedtlu_fast.changes.stored import PIECE, Stored, pieces
from fedtlu_fast.machine import cores
from fedtlu_fast.ops import dispatch
from fedtlu_fast.ops.moments import Moments
from fedtlu_fast.scoring import LayerStats
from fedtlu_fast.torch_state import torch_threads, without_modes

MOST_THREADS = 4
"""More threads would wait for the disk or the memory."""
AHEAD = 8
"""The number of pieces for each thread that may be finished before they are needed."""

Row = tuple[float, float, float, float, float]
"""Count, mean, sum of squared deviations, largest magnitude, and number of non-finite elements."""


class _Task(NamedTuple):
    """The elements ``start:stop`` of one layer."""

    layer: int
    start: int
    stop: int


@without_modes
def stats_of(pairs: Sequence[Pair], backend: str, *, weights: bool) -> tuple[LayerStats, LayerStats | None]:
    """Computes statistics of the change of every layer, and of its weights before the change.

    Args:
        pairs: the layers.
        backend: the backend of `layer_stats`.
        weights: whether to compute the statistics of the weights.

    Returns:
        The statistics of the changes, [L], and those of the weights, [L]; None without `weights`.

    Raises:
        InputError: Numbers cannot be read.
    """
    changes, before = ([_Merged() for _ in pairs] for _ in range(2))
    for layer, found in _computed(pairs, backend, weights):
        changes[layer].add(found[0])
        if weights:
            before[layer].add(found[1])
    names = tuple(pair.name for pair in pairs)
    return _stats(names, changes), _stats(names, before) if weights else None


def _computed(pairs: Sequence[Pair], backend: str, weights: bool) -> Iterator[tuple[int, list[Row]]]:
    """Yields the moments of all pieces in the order of their places in files, which is that of reading."""
    order = sorted(range(len(pairs)), key=lambda layer: _place(pairs[layer]))
    tasks = (_Task(layer, *bounds) for layer in order for bounds in pieces(math.prod(pairs[layer].shape)))
    # Triton's interpreter, which runs its kernels on CPUs, can run only one of them at a time.
    threads = min(MOST_THREADS, cores()) if backend != "triton" else 1
    own = threading.local()
    # Each thread computes alone: pieces are too small to share, and threads of PyTorch would wait.
    with torch_threads(1), ThreadPoolExecutor(threads, "fedtlu-score") as pool:
        pending: deque[tuple[int, Future[list[Row]]]] = deque()
        try:
            for task in tasks:
                future = pool.submit(_moments, pairs[task.layer], task, own, backend, weights)
                pending.append((task.layer, future))
                if len(pending) > AHEAD * threads:
                    layer, future = pending.popleft()
                    yield layer, future.result()
            while pending:
                layer, future = pending.popleft()
                yield layer, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _place(pair: Pair) -> tuple[str, int]:
    first = (pair.before or pair.after)[0]
    return str(getattr(first.source, "path", "")), first.place


def _moments(pair: Pair, task: _Task, own: threading.local, backend: str, weights: bool) -> list[Row]:
    """Returns the moments of one piece of the change and, with `weights`, of the weights before it.

    Args:
        pair: the layer.
        task: the piece.
        own: keeps the buffers of each thread.
        backend: the backend of `layer_stats`.
        weights: whether to compute those of the weights.
    """
    if not hasattr(own, "buffers"):
        own.buffers = torch.empty(2, PIECE, dtype=torch.float64)
    new, old = own.buffers[:, : task.stop - task.start]
    # A weight that both sums share is no part of their difference.
    common = [term for term in pair.before if term in pair.after]
    _add_up([term for term in pair.before if term not in common], task, old)
    _add_up([term for term in pair.after if term not in common], task, new)
    rows = [_row(new.sub_(old), backend)]
    if weights:
        for term in common:
            old.add_(term.flat(task.start, task.stop))
        rows.append(_row(old, backend))
    return rows


def _add_up(terms: Sequence[Stored], task: _Task, out: Tensor) -> None:
    """Writes the sum of one piece of the terms into `out`, float64; without terms, zeros."""
    if not terms:
        out.zero_()
    for place, term in enumerate(terms):
        part = term.flat(task.start, task.stop)
        if place:
            out.add_(part)
        else:
            out.copy_(part)


def _row(values: Tensor, backend: str) -> Row:
    found = dispatch.layer_stats(values, torch.tensor([0, len(values)]), backend)
    return (
        float(found.count),
        float(found.mean),
        float(found.m2),
        float(found.abs_max),
        float(found.nonfinite),
    )


class _Merged:
    """The moments of the pieces of a layer so far."""

    def __init__(self) -> None:
        self.row: Row = (0.0, 0.0, 0.0, 0.0, 0.0)

    def add(self, row: Row) -> None:
        """Adds the moments of the next piece."""
        self.row = _joined(self.row, row) if self.row[0] else row


def _joined(one: Row, two: Row) -> Row:
    """Returns the moments of two parts of a layer together."""
    count = one[0] + two[0]
    nonfinite = one[4] + two[4]
    if nonfinite:
        return count, math.nan, math.nan, math.nan, nonfinite
    shift = two[1] - one[1]
    mean = one[1] + shift * (two[0] / count)
    m2 = one[2] + two[2] + shift * shift * (one[0] * two[0] / count)
    return count, mean, m2, max(one[3], two[3]), 0.0


def _stats(names: tuple[str, ...], merged: Sequence[_Merged]) -> LayerStats:
    rows = torch.tensor([own.row for own in merged], dtype=torch.float64).reshape(len(names), 5)
    return LayerStats.from_moments(names, Moments(rows.T))
