"""Holdings: compared with counts by hand on every kind of data, and sampled for a million clients."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.federations import write_text
from support.sampling import examples

from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.holdings import MOST_CLIENTS, five_numbers, look, spread

NAMES = tuple("abcdef")
CODES = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=20).map(np.array), min_size=1, max_size=9)


def looked_at(**over):
    config = parse_config({"clients": 6, "cohort": 2, **over})
    labelled = config.task == "classification"
    by = config.partition.partitioner.by
    return config, look(load_federation(config), config.seed, by, labelled=labelled)


@examples(150)
@given(CODES)
def test_measures_equal_their_formulas(codes):
    found = spread(codes, NAMES)
    counts = np.array([np.bincount(own, minlength=6) for own in codes])
    shares, overall = counts / counts.sum(axis=1, keepdims=True), counts.sum(axis=0) / counts.sum()
    logs = np.log(np.where(shares > 0, shares, 1))
    assert found.overall == pytest.approx(overall)
    assert found.distinct().tolist() == (counts > 0).sum(axis=1).tolist()
    assert found.entropy() == pytest.approx(-(shares * logs).sum(axis=1), abs=1e-12)
    assert (found.entropy() >= 0).all()
    assert found.distance() == pytest.approx(np.abs(shares - overall).sum(axis=1) / 2, abs=1e-12)


def test_five_numbers():
    found = five_numbers(np.array([4, 1, 3, 2, 10]))
    assert found == {"min": 1, "q1": 2, "median": 3, "q3": 4, "max": 10, "mean": 4}


def test_text_is_counted_by_source_with_train_and_test_part(tmp_path):
    text = write_text(tmp_path / "text.txt")
    data = {"source": f"text:{text}", "window": 8, "vocabulary": 40}
    config, found = looked_at(data=data)
    held = load_federation(config).population
    assert found.train.tolist() == [len(held.train(client)) for client in range(6)]
    assert found.own_test.tolist() == [len(held.held_out(client)) for client in range(6)]
    assert (found.by, found.left_over, found.clients) == ("source", 0, 6)
    assert found.spreads["source"].counts.sum() == len(held.pool[0])
    sizes = {"name": "inner_dirichlet", "partition_sizes": [5] * 6}
    assert looked_at(data=data, partition=sizes)[1].left_over == len(held.pool[0]) - 30


def test_labels_stand_in_for_attributes_of_a_classification():
    config, found = looked_at(task="classification", data={"source": "synthetic", "classes": 4})
    population = load_federation(config).population
    labels = np.concatenate([population.train(2).all()[1], population.held_out(2).all()[1]])
    own = found.spreads["label"]
    here = own.clients == 2
    counted = dict(zip(own.values[here].tolist(), own.counts[here].tolist(), strict=True))
    assert counted == {label: int((labels == label).sum()) for label in set(labels.tolist())}
    assert (found.by, found.left_over, own.names) == ("label", None, ("0", "1", "2", "3"))


def test_a_sample_of_a_million_clients_is_counted():
    start = time.monotonic()
    _, found = looked_at(task="classification", data={"source": "synthetic"}, clients=1_000_000)
    assert time.monotonic() - start < 30
    assert (found.clients, len(found.train)) == (1_000_000, MOST_CLIENTS)
    assert len(set(found.looked_at.tolist())) == MOST_CLIENTS
    # A uniform draw: the mean of 10,000 numbers below a million is 500,000 +- 2,887.
    assert abs(found.looked_at.mean() - 500_000) < 5 * 2_900


def test_arrays_without_labels_have_sizes_only_and_may_lack_own_tests(tmp_path):
    samples = np.arange(90).reshape(10, 9) % 20
    for name, array in {
        "samples": samples,
        "test_samples": samples[:2],
        "train_rows": np.arange(10),
        "train_starts": np.array([0, 3, 4, 10]),
    }.items():
        np.save(tmp_path / f"{name}.npy", array.astype(np.int64))
    data = {"source": f"arrays:{tmp_path}", "window": 8, "vocabulary": 20}
    _, found = looked_at(data=data, clients=3)
    assert (found.train.tolist(), found.own_test.tolist()) == ([3, 1, 6], [0, 0, 0])
    assert (found.by, dict(found.spreads), found.left_over) == (None, {}, None)
