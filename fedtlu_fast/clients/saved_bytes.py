"""The memory that a forward pass keeps for its backward pass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.data.population import Samples
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.tasks.task import Task


def saved_bytes(task: Task, samples: Samples, batch_size: int) -> int:
    """Measures the bytes that one client's forward pass keeps for its backward pass.

    Args:
        task: the model and its loss.
        samples: the samples of any client.
        batch_size: number of samples in the pass.
    """
    kept: dict[int, int] = {}
    own = {param.untyped_storage().data_ptr() for param in task.model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = tensor.untyped_storage().nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch_seeded(0, "saved bytes"):
        task.loss(samples.take(np.arange(min(len(samples), batch_size))))
    return sum(kept.values())
