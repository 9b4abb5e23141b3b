"""A single sample at the end of a pass, and models that cannot be trained on it."""

import numpy as np
import pytest
from torch import nn

from fedtlu_fast.clients.batches import batches, normalises_batches, probe_batches
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.costs.rounds import samples_processed
from fedtlu_fast.randomness import generator


def _plan(size: int, width: int, alone: bool, **training: object) -> list[np.ndarray]:
    config = TrainingConfig(batch_size=width, **training).local
    return batches(size, config, generator(0, "batches"), alone)


@pytest.mark.parametrize("size", [9, 17])
def test_a_single_sample_joins_the_batch_before_it(size: int) -> None:
    plain, joined = (_plan(size, 8, alone, local_epochs=2) for alone in (True, False))
    assert [len(batch) for batch in joined] == [*[8] * (size // 8 - 1), 9] * 2
    assert np.array_equal(np.concatenate(plain), np.concatenate(joined)), "the same samples in the same order"
    training = TrainingConfig(batch_size=8, local_steps=5).local
    assert samples_processed(size, training, alone=False) == sum(
        map(len, _plan(size, 8, False, local_steps=5))
    )


@pytest.mark.parametrize(("size", "width"), [(8, 8), (10, 8), (1, 8), (5, 1), (16, 8)])
def test_other_batches_stay_as_they_are(size: int, width: int) -> None:
    plain, joined = (_plan(size, width, alone, local_epochs=3) for alone in (True, False))
    assert [batch.tolist() for batch in plain] == [batch.tolist() for batch in joined]


def test_probes_join_it_when_they_come_to_the_end_of_a_pass() -> None:
    def lengths(count: int, alone: bool) -> list[int]:
        return [len(batch) for batch in probe_batches(17, 8, count, generator(0, "probe"), alone)]

    assert (lengths(1, False), lengths(2, False), lengths(9, False)) == ([8], [8, 9], [8, 9])
    assert (lengths(2, True), lengths(9, True)) == ([8, 8], [8, 8, 1])


def test_only_batchnorm_takes_its_statistics_from_the_batch() -> None:
    assert normalises_batches(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert not normalises_batches(nn.Sequential(nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.InstanceNorm1d(2)))


def test_a_client_without_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sample to train on"):
        _plan(0, 8, True, local_steps=2)
    assert samples_processed(0, TrainingConfig(local_steps=2).local) == 0
