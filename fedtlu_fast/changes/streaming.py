"""Computes the statistics of every layer's change, reading both states a piece at a time.

One thread reads ahead while another one computes, so that the memory in use depends neither on the model nor
on its largest tensor. The pieces of a tensor have a fixed size and order. Differences are taken in float64,
and the moments of the pieces are combined in float64 (Chan, Golub and LeVeque 1979), so that the result is
that of the whole tensor up to the last digits.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtlu_fast.changes.pairing import Pair, Terms
from fedtlu_fast.changes.stored import PIECE, Stored, pieces
from fedtlu_fast.ops import dispatch
from fedtlu_fast.ops.moments import Moments
from fedtlu_fast.scoring import LayerStats
from fedtlu_fast.torch_state import without_modes

AHEAD = 8
"""The number of pieces that are read before they are needed."""


@dataclass(frozen=True)
class _Piece:
    """The numbers of one piece of a layer, as they are stored.

    Attributes:
        layer: the index of the layer.
        count: the number of elements.
        before: the parts of the sum before the change that are not parts of the sum after it.
        after: the parts of the sum after the change that are not parts of the sum before it.
        common: the parts of both sums.
    """

    layer: int
    count: int
    before: list[Tensor]
    after: list[Tensor]
    common: list[Tensor]


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
    buffers = torch.empty(2, PIECE, dtype=torch.float64)
    for piece in _ahead(pairs, weights):
        new, old = buffers[:, : piece.count]
        _add_up(piece.after, new)
        _add_up(piece.before, old)
        bounds = torch.tensor([0, piece.count])
        changes[piece.layer].add(dispatch.layer_stats(new.sub_(old), bounds, backend))
        if weights:
            for part in piece.common:
                old.add_(part)
            before[piece.layer].add(dispatch.layer_stats(old, bounds, backend))
    names = tuple(pair.name for pair in pairs)
    found = [_stats(names, merged) for merged in (changes, before)]
    return found[0], found[1] if weights else None


def _ahead(pairs: Sequence[Pair], weights: bool) -> Iterator[_Piece]:
    """Yields all pieces, which another thread reads meanwhile, in the order of their places in files."""
    order = sorted(range(len(pairs)), key=lambda layer: _place(pairs[layer]))
    tasks = ((layer, *bounds) for layer in order for bounds in pieces(math.prod(pairs[layer].shape)))
    with ThreadPoolExecutor(1, "fedtlu-read") as reader:
        pending: deque[Future[_Piece]] = deque()
        try:
            for layer, start, stop in tasks:
                pending.append(reader.submit(_read, pairs[layer], layer, start, stop, weights))
                if len(pending) > AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _place(pair: Pair) -> tuple[str, int]:
    first = (pair.before or pair.after)[0]
    return str(getattr(first.source, "path", "")), first.place


def _read(pair: Pair, layer: int, start: int, stop: int, weights: bool) -> _Piece:
    def read(terms: Iterable[Stored]) -> list[Tensor]:
        return [term.flat(start, stop) for term in terms]

    common: Terms = tuple(term for term in pair.before if term in pair.after)
    return _Piece(
        layer,
        stop - start,
        read(term for term in pair.before if term not in common),
        read(term for term in pair.after if term not in common),
        read(common) if weights else [],
    )


def _add_up(parts: Sequence[Tensor], out: Tensor) -> None:
    """Writes the sum of the parts into `out`, float64; without parts, zeros."""
    if not parts:
        out.zero_()
    for place, part in enumerate(parts):
        if place:
            out.add_(part)
        else:
            out.copy_(part)


class _Merged:
    """The moments of the pieces so far, as float64 numbers."""

    def __init__(self) -> None:
        self.row = (0.0, 0.0, 0.0, 0.0, 0.0)

    def add(self, moments: Moments) -> None:
        """Adds the moments of the next piece, [1]."""
        columns = (moments.count, moments.mean, moments.m2, moments.abs_max, moments.nonfinite)
        own = tuple(float(column) for column in columns)
        self.row = _joined(self.row, own) if self.row[0] else own


def _joined(one: Sequence[float], two: Sequence[float]) -> tuple[float, float, float, float, float]:
    """Returns count, mean, m2, abs_max and nonfinite of two parts of a layer together."""
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
    return LayerStats.from_moments(names, Moments(*rows.unbind(dim=1)))
