"""Reading ahead: it changes when a client's samples are read, and nothing else."""

import threading
import time

import numpy as np
import pytest
import torch

from fedtlu_fast.data.ahead import AHEAD, AheadPopulation
from fedtlu_fast.data.population import ArrayPopulation, Shares

CLIENTS = 30


class Counting(ArrayPopulation):
    """Logs each client that is read, with the thread; client 13 cannot be read."""

    def train(self, client):
        LOG.append((client, threading.current_thread().name))
        if client == 13:
            raise OSError("unplugged")
        return super().train(client)


LOG: list[tuple[int, str]] = []


@pytest.fixture
def population():
    LOG.clear()
    pool = (torch.arange(300.0).view(100, 3), torch.arange(100) % 4)
    shares = Shares.of(np.array_split(np.random.default_rng(0).permutation(100), CLIENTS))
    return Counting(pool, shares, shares, (pool[0][:5], pool[1][:5]), "print")


def same(one, other):
    assert len(one) == len(other)
    for mine, its in zip(one.all(), other.all(), strict=True):
        assert torch.equal(mine, its)


def test_samples_do_not_depend_on_announcements(population):
    ahead = AheadPopulation(population, "cpu")
    for client in (3, 29, 0):
        same(ahead.train(client), ArrayPopulation.train(population, client))
        same(ahead.held_out(client), population.held_out(client))
    order = [5, 2, 9, 28, 1, 0, 4, 6, 7, 8, 10, 11]
    ahead.announce(order)
    for client in order:
        same(ahead.train(client), ArrayPopulation.train(population, client))
    assert (ahead.clients, ahead.fingerprint) == (CLIENTS, "print")
    assert np.array_equal(ahead.sizes(), population.sizes())
    assert len(ahead.test[0]) == 5


def test_each_client_is_read_once_in_a_thread_and_not_too_far_ahead(population):
    ahead = AheadPopulation(population, "cpu")
    order = [client for client in range(CLIENTS) if client != 13]
    ahead.announce(order)
    for done, client in enumerate(order, 1):
        ahead.train(client)
        assert len(LOG) <= done + AHEAD
    assert [client for client, _ in LOG] == order
    assert {name.rpartition("_")[0] for _, name in LOG} == {"fedtlu-ahead"}


def test_a_client_that_was_not_announced_is_read_immediately(population):
    ahead = AheadPopulation(population, "cpu")
    ahead.announce([1, 2, 3])
    same(ahead.train(20), ArrayPopulation.train(population, 20))
    same(ahead.train(2), ArrayPopulation.train(population, 2))
    ahead.announce([4])
    same(ahead.train(3), ArrayPopulation.train(population, 3))


def test_an_error_while_reading_is_raised_when_the_client_trains(population):
    ahead = AheadPopulation(population, "cpu")
    ahead.announce([12, 13, 14])
    ahead.train(12)
    with pytest.raises(OSError, match="unplugged"):
        ahead.train(13)
    same(ahead.train(14), ArrayPopulation.train(population, 14))


class Alone(ArrayPopulation):
    """Notes when two threads read at once."""

    def train(self, client):
        return self._alone(super().train, client)

    def held_out(self, client):
        return self._alone(super().held_out, client)

    def _alone(self, read, client):
        READERS.append(client)
        time.sleep(0.001)
        TOGETHER.append(len(READERS))
        READERS.pop()
        return read(client)


READERS: list[int] = []
TOGETHER: list[int] = []


def test_a_client_that_looks_at_what_it_keeps_back_waits_for_the_reader(population):
    TOGETHER.clear()
    ahead = AheadPopulation(Alone(**vars(population)), "cpu")
    ahead.announce(range(CLIENTS))
    for client in range(CLIENTS):
        ahead.train(client)
        same(ahead.held_out(client), ArrayPopulation.held_out(population, client))
    assert TOGETHER == [1] * (2 * CLIENTS)
