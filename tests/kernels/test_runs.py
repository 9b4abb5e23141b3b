"""Columns that registers do not hold are sorted by merges; here with short runs, so that there are many."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from fedtlu_fast.kernels import runs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(("clients", "size"), [(5, runs.BLOCK + 3), (33, 3)])
def test_merges_of_several_steps_sort(generator, monkeypatch, clients, size):
    monkeypatch.setattr(runs, "LOG", 2)
    monkeypatch.setattr(runs, "RUN", 4)
    monkeypatch.setattr(runs, "KEYS", runs.BLOCK * clients)  # one block of columns at a time
    stack = torch.randn(clients, size, generator=generator)
    stack[0, ::7], stack[clients - 1, ::2] = torch.nan, -torch.inf
    out, place = torch.empty(size, device=DEVICE), clients // 3
    runs.sorted_mean(out, list(stack.to(DEVICE)), None, place, place + 1)
    np.testing.assert_array_equal(out.cpu().numpy(), np.sort(stack.numpy(), axis=0)[place])


def test_every_layer_of_a_network_is_launched_once():
    for clients in (113, 128, 129, 4096, 4097, 70_000):
        size, done = 2 * runs.RUN, 0
        for step, mirror, layers in runs._merges(clients):
            if mirror:
                assert done == 0
                assert step * runs.RUN == size
                done = runs.LOG
            else:
                top = size.bit_length() - 1 - done
                assert step << (layers - 1) == 1 << (top - 1)
                done += layers
            if done == size.bit_length() - 1:
                size, done = 2 * size, 0
        assert done == 0
        assert size // 2 >= clients > size // 4
