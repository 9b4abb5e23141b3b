"""The batches of a client's round: the samples that each of its steps takes."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import ceil

import numpy as np
from torch import nn

from fedtlu_fast.clients.local import Local
from fedtlu_fast.data.population import Indices


def normalises_batches(model: nn.Module) -> bool:
    """Tells whether a layer of the model takes its statistics from the batch (BatchNorm of any kind).

    Such a layer cannot be trained on a batch that has a single number for each channel.
    """
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def batches(size: int, local: Local, draws: np.random.Generator, alone: bool = True) -> list[Indices]:
    """Returns the batches of one client's round, each as places (from 0) in the client's samples.

    Samples are shuffled anew for each pass. ``local.steps`` is the number of batches; with ``local.epochs``
    there are as many batches as cover that many passes, rounded up. A pass ends with a smaller batch if the
    batch size does not divide the number of samples.

    Args:
        size: number of samples that the client holds.
        local: steps or epochs, and the batch size.
        draws: the generator of this client in this round.
        alone: whether a batch may have a single sample. If not, a single sample that is left over at the end
            of a pass joins the batch before it.

    Raises:
        ValueError: the client holds no sample.
    """
    if not size:
        raise ValueError("there is no sample to train on")
    per_epoch, steps = len(_starts(size, local.batch_size, alone)), steps_of(size, local, alone)
    found: list[Indices] = []
    for first in range(0, steps, per_epoch):
        found += _cut(draws.permutation(size), local.batch_size, steps - first, alone)
    return found


def steps_of(size: int, local: Local, alone: bool = True) -> int:
    """Returns the number of batches that `batches` gives for these arguments."""
    return local.steps or _steps(local.epochs or 1, len(_starts(size, local.batch_size, alone)))


def probe_batches(
    size: int, width: int, count: int, draws: np.random.Generator, alone: bool = True
) -> list[Indices]:
    """Returns the first `count` batches of a shuffled pass over a client's samples, or all its batches.

    Args:
        size: number of samples that the client holds.
        width: number of samples in a batch.
        count: number of batches.
        draws: the generator of this client in this round.
        alone: see `batches`.
    """
    return _cut(draws.permutation(size), width, count, alone)


def _cut(order: Indices, width: int, count: int, alone: bool) -> list[Indices]:
    """Cuts the first `count` batches from the order of a pass."""
    starts = _starts(len(order), width, alone)
    found = [order[first : first + width] for first in starts[:count]]
    if found and len(found) == len(starts):
        found[-1] = order[starts[-1] :]
    return found


def _starts(size: int, width: int, alone: bool) -> range:
    """Returns the places at which the batches of a pass begin."""
    joined = not alone and 1 < width < size and size % width == 1
    return range(0, size - joined, width)


@cache
def _steps(epochs: float, per_epoch: int) -> int:
    # Exact decimal arithmetic: 0.07 passes of 100 batches are 7 batches, but the float product is above 7.
    return ceil(Fraction(str(epochs)) * per_epoch)
