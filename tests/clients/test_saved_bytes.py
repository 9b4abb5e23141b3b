"""The memory that a forward pass keeps, counted by hand."""

import numpy as np
import torch
from torch import nn

from fedtlu_fast.clients.saved_bytes import saved_bytes
from fedtlu_fast.data.population import Samples
from fedtlu_fast.tasks.classification import Classification

FEATURES, LABELS = 6, 4
POOL = torch.randn(50, FEATURES), torch.randint(LABELS, (50,))


def test_saved_bytes_are_what_the_backward_pass_needs():
    class Squares(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(FEATURES, LABELS))

        def forward(self, x):
            return torch.exp(x @ self.weight)

    task = Classification(Squares())
    held = Samples(POOL, np.arange(50))
    found = {size: saved_bytes(task, held, size) for size in (1, 10, 100)}
    # The inputs, exp's result, log_softmax's result, the labels, the total weight; not the parameters.
    each = 4 * FEATURES + 4 * LABELS + 4 * LABELS + 8
    assert found[10] - found[1] == 9 * each
    assert found[100] - found[10] == 40 * each, "a client has no more than 50 samples"


def test_measuring_draws_nothing_and_leaves_no_gradient():
    model = nn.Sequential(nn.Linear(FEATURES, 9), nn.Dropout(0.5), nn.Linear(9, LABELS))
    task = Classification(model.train())
    held = Samples(POOL, np.arange(20))
    before = torch.get_rng_state()
    saved_bytes(task, held, 8)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(param.grad is None for param in task.model.parameters())
