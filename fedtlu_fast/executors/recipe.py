"""Trains lanes in processes that are not forked from the run's, which build their own data and model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.data.population import as_tensor
from fedtlu_fast.executors.lane_trainer import LaneTrainer
from fedtlu_fast.executors.lanes import Lane, LaneResult
from fedtlu_fast.executors.patience import Watch
from fedtlu_fast.torch_state import own_state


class LaneWorker:
    """Trains lanes in a process of its own, to the bits that the run's process would give.

    Attributes:
        elsewhere: the differences between this process and the run's that can change last bits, such as the
            version of PyTorch; empty if there are none.
    """

    def __init__(self, trainer: LaneTrainer, device: str, threads: int = 1, elsewhere: str = "") -> None:
        """Takes over a trainer.

        Args:
            trainer: the trainer of lanes in this process.
            device: the device of its model.
            threads: the number of PyTorch's threads here.
            elsewhere: see the class.
        """
        self._trainer, self._device, self._threads, self.elsewhere = trainer, device, threads, elsewhere

    def train(self, start: Sequence[Tensor | NDArray[np.float32]], lane: Lane) -> LaneResult:
        """Trains a lane.

        Args:
            start: the global parameters [P] and buffers [Q], as tensors or as NumPy arrays, float32; they
                stay as they are.
            lane: the lane.

        Returns:
            The result, valid until the next lane is trained. Pickling copies it.

        Raises:
            ClientError: A client failed, and the settings say to stop.
        """
        with own_state(self._threads):
            params, buffers = (
                (vector if isinstance(vector, Tensor) else as_tensor(vector)).to(self._device)
                for vector in start
            )
            return self._trainer.train((params, buffers), lane)


class Recipe(Protocol):
    """Builds a `LaneWorker` in the process that calls it, with data and a model of its own."""

    def __call__(self, watch: Watch | None = None) -> LaneWorker:
        """Builds data and model.

        Args:
            watch: the function to call before every client; see `Watch`.

        Raises:
            InputError: The data here are not those of the run.
        """
        ...
