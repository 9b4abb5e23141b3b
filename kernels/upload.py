"""Sends small tables of integers to the device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.int64]


@dataclass(frozen=True)
class Upload:
    """A table on the device, or on its way there.

    Attributes:
        values: [N], int64.
        copied: the event that they have arrived; None on the CPU.
    """

    values: Tensor
    copied: torch.cuda.Event | None

    def wait(self) -> None:
        """Makes the current stream wait for the copy; the host does not wait."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.values.device)
            stream.wait_event(self.copied)
            self.values.record_stream(stream)  # the memory must outlive this stream's use of it


def upload(table: Array, device: torch.device) -> Upload:
    """Sends a table [N] to the device, on the current stream."""
    values = torch.from_numpy(table)
    if device.type != "cuda":
        return Upload(values, None)
    # Page-locked memory is copied while the host goes on; torch keeps it until the copy is over.
    moved = values.pin_memory().to(device, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(device))
    return Upload(moved, copied)
