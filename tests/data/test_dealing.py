"""Dealing: the attribute by which a partition deals, and clients that would get too few samples."""

from dataclasses import dataclass

import numpy as np
import pytest
from support.own_parts import Stripes

from fedtlu_fast import InputError
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.dealing import Attribute, deal
from fedtlu_fast.data.partition import Partitioner
from fedtlu_fast.parts import parameters
from fedtlu_fast.registry import NAMES, find

DOCUMENTS = np.repeat(np.arange(40), 10)
ATTRIBUTES = {
    "document": Attribute(DOCUMENTS, tuple(f"d{index}" for index in range(40))),
    "genre": Attribute(DOCUMENTS % 4, ("news", "fiction", "legal", "mail")),
}


def dealt(clients=10, partition=None, **over):
    config = parse_config({"clients": clients, "cohort": 1, "partition": partition or {}, **over})
    return deal(
        ATTRIBUTES,
        config.clients,
        config.partition.partitioner,
        config.partition.min_samples,
        config.data.local_fraction,
        config.seed,
    )


def whole(shares, tests, client):
    return np.concatenate([shares[client], tests[client]])


@pytest.mark.parametrize("name", NAMES["partitioner"])
def test_every_partition_gives_every_client_a_train_and_a_test_part(name):
    clients = 4
    shares, tests = dealt(clients, {"name": name})
    assert len(shares) == len(tests) == clients
    held = np.concatenate([whole(shares, tests, client) for client in range(clients)])
    assert len(set(held.tolist())) == len(held)
    for client in range(clients):
        assert len(shares[client]) >= 1
        assert len(tests[client]) >= 1
        assert len(whole(shares, tests, client)) >= 4


@pytest.mark.parametrize(
    ("by", "values"), [(None, DOCUMENTS), ("document", DOCUMENTS), ("genre", DOCUMENTS % 4)]
)
def test_a_partition_deals_by_the_named_attribute_or_the_first(by, values):
    shares, tests = dealt(4, {"name": "pathological", "by": by, "num_classes_per_partition": 1})
    held = [set(values[whole(shares, tests, client)].tolist()) for client in range(4)]
    assert [len(own) for own in held] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "name", [name for name in NAMES["partitioner"] if "by" in parameters(find("partitioner", name, ""))]
)
def test_an_unknown_attribute_is_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match=r"partition.by: got 'label'; expected one of document, genre"):
        dealt(partition={"name": name, "by": "label"})


def test_a_partitioner_of_the_user_s_deals_by_its_dotted_name_in_short_and_as_an_object():
    short = dealt(4, "support.own_parts:Stripes:3")
    for partition in (
        Stripes(3),
        {"name": Stripes(width=3)},
        {"name": "support.own_parts:Stripes", "width": 3},
    ):
        for first, again in zip(short, dealt(4, partition), strict=True):
            assert all(np.array_equal(first[client], again[client]) for client in range(4))
    assert whole(*short, 1).max() == 399
    with pytest.raises(InputError, match=r"partition.width: got 200; expected stripes for all 4 clients"):
        dealt(4, "support.own_parts:Stripes:200")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([[0, 1, 2, 3]], "samples of 1 clients'; expected a partitioner that deals to 2 clients"),
        ([[0, 1, 2, 3], [4, 5, 6, 3]], "got 'sample 3, dealt twice'"),
        ([[0, 1, 2, 3], [4, 5, 6, 400]], "got 'sample 400, unknown'; .* each of the 400 samples"),
        ([[0, 1, 2, 3], [4, 5, 6, -1]], "got 'sample -1, unknown'"),
    ],
)
def test_the_result_of_a_user_s_partitioner_is_checked(parts, message):
    class Wrong(Partitioner):
        def partition(self, to_deal, generator):
            return [np.array(own) for own in parts]

    with pytest.raises(InputError, match=f"partition.name: .*{message}"):
        dealt(2, Wrong())


def test_a_client_with_too_few_samples_is_refused_with_the_fix():
    with pytest.raises(InputError, match=r"min_samples: got 4; expected at most 2, what client 1 .*Use"):
        dealt(2, {"name": "inner_dirichlet", "partition_sizes": [9, 2]})
    with pytest.raises(InputError, match=r"min_samples: got 4; expected at most 3, what client 0"):
        dealt(100, {"name": "shard", "num_shards_per_partition": 1, "shard_size": 3})


def test_a_client_without_a_train_or_test_sample_is_refused_with_the_fix():
    with pytest.raises(InputError, match=r"clients\[0\]: got '2 samples'; .*0.9 of them. Use fewer clients"):
        dealt(200, {"name": "iid", "min_samples": 2}, data={"local_fraction": 0.9})


@pytest.mark.parametrize("name", NAMES["partitioner"])
def test_more_clients_than_samples_is_refused(name):
    with pytest.raises(InputError, match=r"clients: got 500|partition.min_samples: got 4"):
        dealt(500, {"name": name})


@dataclass(frozen=True)
class Shuffled(Partitioner):
    """Deals by NumPy's global generator."""

    def partition(self, to_deal, generator):
        return np.array_split(np.random.permutation(len(DOCUMENTS)), to_deal.clients)  # noqa: NPY002


def test_a_partitioner_that_draws_from_the_global_generators_deals_by_the_seed():
    first, again, other = (deal(ATTRIBUTES, 10, Shuffled(), 1, 0.1, seed) for seed in (0, 0, 1))
    assert np.array_equal(whole(*first, 0), whole(*again, 0))
    assert not np.array_equal(whole(*first, 0), whole(*other, 0))
