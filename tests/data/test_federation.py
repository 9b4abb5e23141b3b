"""The data of a whole federation: the clients' samples, the tests, and the fingerprint."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedtlu_fast import InputError
from fedtlu_fast.build import data as build
from fedtlu_fast.config.settings import parse_config

WINDOW = 8


@pytest.fixture
def corpus(tmp_path):
    """Four sources of 400 words each; a word encodes its source and its place."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for source in "abcd":
        words = " ".join(f"{source}{index}" for index in range(400))
        (folder / f"{source}.txt").write_text(words, encoding="utf-8")
    return folder


def data_words(corpus, test_fraction):
    """Returns the whole words before the cut."""
    words = set()
    for path in corpus.iterdir():
        text = path.read_text(encoding="utf-8")
        cut = text.find(" ", int(len(text) * (1 - test_fraction)))
        words.update(text[:cut].split())
    return words


def settings(corpus, **over):
    data = {"source": f"text:{corpus}", "window": WINDOW, "vocabulary": 5000, **over.pop("data", {})}
    return parse_config({"clients": 6, "cohort": 2, **over, "data": data})


def load_federation(config):
    """Text dealt to clients, with access to each part."""
    data = build.load_federation(config)
    held = data.population
    return SimpleNamespace(
        samples=held.pool[0],
        test=held.test[0],
        clients=[
            SimpleNamespace(train=held.train(client).rows, test=held.held_out(client).rows)
            for client in range(held.clients)
        ],
        sources=data.attributes["source"].codes,
        source_names=data.attributes["source"].names,
        vocabulary=data.outputs,
        fingerprint=held.fingerprint,
    )


def assert_sound(data, config):
    assert len(data.clients) == config.clients
    held = [row for client in data.clients for row in (*client.train, *client.test)]
    assert sorted(held) == list(range(len(data.samples))), "every sample is held once, for one purpose"
    for client in data.clients:
        assert len(client.train) >= 1
        assert len(client.test) >= 1
        assert len(client.train) + len(client.test) >= config.partition.min_samples
    assert data.samples.shape[1] == data.test.shape[1] == config.data.window + 1
    assert (data.samples.dtype, data.test.dtype) == (torch.int64, torch.int64)
    assert len(data.sources) == len(data.samples)
    for ids in (data.samples, data.test):
        assert ids.min() >= 0
        assert ids.max() < data.vocabulary


@pytest.mark.parametrize("partition", ["iid", "dirichlet:0.05", "dirichlet:50"])
@pytest.mark.parametrize("clients", [1, 6, 30])
def test_every_sample_is_held_once(corpus, partition, clients):
    config = settings(corpus, partition=partition, clients=clients, cohort=1)
    assert_sound(load_federation(config), config)


def test_natural_gives_each_client_one_topic(corpus):
    config = settings(corpus, partition="natural", clients=4)
    data = load_federation(config)
    assert_sound(data, config)
    assert data.source_names == ("a.txt", "b.txt", "c.txt", "d.txt")
    topics = [set(data.sources[np.concatenate([client.train, client.test])]) for client in data.clients]
    assert topics == [{0}, {1}, {2}, {3}]


def test_the_global_test_is_the_end_of_every_source_and_no_client_trains_on_it(corpus):
    data = load_federation(settings(corpus, partition="iid", data={"test_fraction": 0.25}))
    trained, tested = set(data.samples.flatten().tolist()), set(data.test.flatten().tolist())
    # The vocabulary is learned on the training part, in which no word of the test occurs: all are <unk>.
    assert len(tested) == 1
    assert not trained & tested
    # Shares are of characters, and words grow longer towards the end.
    assert len(data.test) / (len(data.test) + len(data.samples)) == pytest.approx(0.25, abs=0.04)


def test_samples_of_a_source_follow_each_other(corpus):
    data = load_federation(settings(corpus, partition="iid"))
    assert (np.diff(data.sources) >= 0).all()
    for before, after in pairwise(range(len(data.samples))):
        if data.sources[before] == data.sources[after]:
            assert data.samples[before, -1] == data.samples[after, 0]


def test_own_tests_have_the_share_of_the_settings(corpus):
    for fraction in (0.2, 0.5):
        data = load_federation(settings(corpus, partition="iid", data={"local_fraction": fraction}))
        for client in data.clients:
            count = len(client.train) + len(client.test)
            assert len(client.test) == pytest.approx(fraction * count, abs=0.5)


def test_the_same_settings_give_the_same_federation(corpus):
    first, second = (load_federation(settings(corpus)) for _ in range(2))
    assert torch.equal(first.samples, second.samples)
    assert first.fingerprint == second.fingerprint
    for a, b in zip(first.clients, second.clients, strict=True):
        assert np.array_equal(a.train, b.train)
        assert np.array_equal(a.test, b.test)


def test_the_fingerprint_depends_on_data_seed_and_partition(corpus):
    def fingerprint(**over):
        return load_federation(settings(corpus, **over)).fingerprint

    prints = [
        fingerprint(),
        fingerprint(seed=1),
        fingerprint(clients=7),
        fingerprint(partition="iid"),
        fingerprint(partition="dirichlet:0.2"),
        fingerprint(data={"window": 9}),
        fingerprint(data={"vocabulary": 100}),
        fingerprint(data={"test_fraction": 0.2}),
        fingerprint(data={"local_fraction": 0.4}),
    ]
    path = corpus / "b.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("b7 b8", "b8 b7"), encoding="utf-8")
    prints.append(fingerprint())
    assert len(set(prints)) == len(prints)


def test_settings_of_training_do_not_change_the_data(corpus):
    plain = load_federation(settings(corpus)).fingerprint
    assert load_federation(settings(corpus, rounds=3, training={"lr": 9.0})).fingerprint == plain


def test_the_vocabulary_is_no_larger_than_the_setting(corpus):
    assert load_federation(settings(corpus, data={"vocabulary": 50})).vocabulary == 50
    config = settings(corpus)
    full = load_federation(config)
    assert full.vocabulary == len(data_words(corpus, config.data.test_fraction)) + 1


def test_a_source_too_short_for_a_sample_is_left_out(corpus):
    (corpus / "short.txt").write_text("only three words", encoding="utf-8")
    config = settings(corpus)
    data = load_federation(config)
    assert_sound(data, config)
    assert "short.txt" in data.source_names


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"clients": 1000}, r"text for 4000 samples \(1000 clients of 4 or more\).*Use fewer clients"),
        ({"partition": {"min_samples": 100}}, "text for 600 samples"),
        ({"data": {"window": 399}}, "gives 0 samples to train on and 0 to test, of 399 tokens"),
        ({"data": {"test_fraction": 0.001}}, "and a test, but it gives"),
        ({"partition": "natural", "clients": 5}, "clients: got 5; expected at most 4, .*Use clients=4"),
        (
            {"partition": {"name": "iid", "min_samples": 2}, "clients": 60, "data": {"local_fraction": 0.9}},
            r"clients\[0\]: got '\d samples'; expected at least one to train on and one to test on",
        ),
    ],
    ids=["clients", "min_samples", "window", "test", "natural", "local test"],
)
def test_too_little_text_is_refused(corpus, over, message):
    with pytest.raises(InputError, match=message):
        load_federation(settings(corpus, **over))


def test_the_embedded_default_serves_a_hundred_clients():
    config = parse_config({"clients": 100, "cohort": 10})
    data = load_federation(config)
    assert_sound(data, config)
    assert data.vocabulary == config.data.vocabulary
    assert len(data.samples) > 2000


SHARE = "test: a share of the training data, since there is none of its own (data.test_fraction)"


@pytest.mark.parametrize(
    ("task", "source", "said", "train"),
    [
        ("language_modelling", "text:{corpus}", SHARE, ["a.txt", "b.txt", "c.txt", "d.txt"]),
        ("language_modelling", "text:{corpus}/a.txt", SHARE, ["a.txt"]),
        ("language_modelling", "pydoc", SHARE, []),
        ("tagging", "pycode", SHARE, []),
        ("image_classification", "digits", SHARE, []),
        ("text_classification", "topics", SHARE, []),
        ("classification", "synthetic", "test: 1,024 samples of 64 clients that take part in no round", []),
    ],
)
def test_every_source_logs_its_test_once(corpus, caplog, task, source, said, train):
    source = source.format(corpus=corpus)
    config = parse_config({"task": task, "clients": 4, "cohort": 2, "data": {"source": source, "window": 4}})
    with caplog.at_level("INFO", "fedtlu_fast.data"):
        origin = build.load_federation(config).origin
    assert caplog.messages == [said]
    facts = origin.facts()
    assert facts["said"] == said
    assert facts["train"] == {"entries": len(train), "names": train}
