"""Federations of a user's own data: Datasets, lists, tensors and functions."""

import numpy as np
import pytest
import torch
from support.own import Sentences, sentences
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fedtlu_fast.data.ahead import AheadPopulation
from fedtlu_fast.data.datasets import Datasets
from fedtlu_fast.data.pad import Pad
from fedtlu_fast.data.population import joined, sizes_of, take_each, whole
from fedtlu_fast.errors import InputError

X, Y = torch.arange(12.0).view(6, 2), torch.arange(6)
LISTED = [(x, y) for x, y in zip(X, Y, strict=True)]


@pytest.mark.parametrize(
    "held",
    [(X, Y), TensorDataset(X, Y), LISTED, (X.numpy(), Y.numpy())],
    ids=["tuple", "set", "list", "arrays"],
)
def test_all_kinds_of_holders_give_the_same_batches(held):
    population = Datasets([held, held], held, [held, held]).population()
    assert population.clients == 2
    assert population.form == (0, 1)
    for samples in (population.train(1), population.held_out(0)):
        assert len(samples) == 6
        features, labels = samples.take(np.array([[5, 0], [2, 2]]))
        assert torch.equal(features, X[[5, 0, 2, 2]].view(2, 2, 2))
        assert torch.equal(labels, Y[[5, 0, 2, 2]].view(2, 2))
    assert torch.equal(whole(population.test)[0], X)


def test_dictionaries_of_tensors_and_rows_of_hugging_face_datasets_are_alike():
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"x": X.tolist(), "labels": Y.tolist()})
    columns = {"x": X, "labels": Y}
    for held in (rows, columns):
        population = Datasets([held], held).population()
        assert population.form == {"labels": 0, "x": 1}
        labels, features = population.train(0).take(np.array([1, 4]))
        assert torch.equal(features, X[[1, 4]])
        assert torch.equal(labels, Y[[1, 4]])


def test_a_lone_tensor_holds_samples_that_are_its_rows():
    population = Datasets([X, X[:2]], X).population()
    assert population.form == 0
    assert torch.equal(population.train(1).all()[0], X[:2])


def test_batches_are_as_long_as_their_longest_sample_also_of_several_clients():
    population = sentences().population()
    first, second = population.train(0), population.train(1)
    lengths = [len(own) for own, _ in first.pool.items]
    short = int(np.argmin(lengths))
    words, tags = first.take(np.array([short]))
    assert words.shape == tags.shape == (1, lengths[short])
    places = np.array([[short, 0], [1, 2]])
    words, tags = take_each([first, second], places)
    longest = max(
        len(held.pool.items[at][0]) for held, own in zip((first, second), places, strict=True) for at in own
    )
    assert words.shape == tags.shape == (2, 2, longest)
    for held, own, row in zip((first, second), places, words, strict=True):
        for at, sentence in zip(own, row, strict=True):
            real = held.pool.items[at][0]
            assert sentence.tolist() == real.tolist() + [0] * (longest - len(real))


def test_samples_of_several_clients_are_joined_without_being_read():
    data = sentences()
    population = data.population()
    held = [population.train(0), population.train(2)]
    pool = joined(held)
    assert [own.read for own in data.train] == [0] * 6
    assert len(pool) == 18
    expected = [own[0].tolist() for client in (0, 2) for own in (data.train[client][at] for at in range(9))]
    found = [pool.select(np.array([at]))[0][0].tolist() for at in range(18)]
    assert found == expected


def test_functions_are_asked_for_the_client_that_is_drawn():
    asked = []

    def make(client):
        asked.append(client)
        return [(torch.full((2,), float(client)), client)] * (client + 1)

    population = Datasets(make, LISTED, clients=1000).population()
    assert population.clients == 1000
    assert asked == []
    assert len(population.train(499)) == 500
    assert asked == [499]
    assert len(population.held_out(3)) == 0
    with pytest.raises(InputError, match="uniform or fixed"):
        sizes_of(population)


def test_sizes_are_known_without_reading():
    data = sentences()
    assert data.population().sizes().tolist() == [9] * 6
    assert sum(held.read for held in data.train) == 0


def test_the_users_collate_function_is_used_for_tensors_too():
    def doubled(samples):
        return {"x": torch.stack([2 * x for x, _ in samples]), "labels": torch.stack([y for _, y in samples])}

    for held in ((X, Y), LISTED):
        for data, collate in (
            (Datasets([held], held, collate_fn=doubled), None),
            (Datasets([held], held), doubled),
        ):
            population = data.population(collate)
            assert population.form == {"labels": 0, "x": 1}
            assert torch.equal(population.train(0).take(np.array([3]))[1], 2 * X[3:4])
    with pytest.raises(InputError, match="the task has a collate function of its own"):
        Datasets([LISTED], LISTED, collate_fn=doubled).population(doubled)


def test_batches_may_be_views():
    turned = Datasets([X], X, collate_fn=lambda own: torch.stack(own, dim=1).T).population()
    places = np.array([[5, 0], [2, 2]])
    assert torch.equal(turned.train(0).take(places)[0], X[[5, 0, 2, 2]].view(2, 2, 2))


def test_a_collate_function_that_loses_samples_or_changes_form_is_refused():
    population = Datasets([LISTED], LISTED, collate_fn=lambda own: Pad()(own[:1])).population()
    with pytest.raises(InputError, match="counts the samples, here 2"):
        population.train(0).take(np.arange(2))
    turned = Datasets([LISTED], LISTED, collate_fn=lambda own: Pad()(own) if len(own) < 2 else X[: len(own)])
    with pytest.raises(InputError, match=r"got 'tensor'.*batches of one form, \(tensor, tensor\)"):
        turned.population().train(0).take(np.arange(2))
    mixed = Datasets([(X, Y), X], (X, Y)).population()
    with pytest.raises(InputError, match=r"train\[1\].*as the test has"):
        mixed.train(1)


def test_the_fingerprint_follows_from_the_content():
    def of(train, test=LISTED, held=None):
        return Datasets(train, test, held).population().fingerprint

    changed = [*LISTED[:-1], (X[5], Y[0])]
    known = of([LISTED, LISTED])
    assert of([list(LISTED), LISTED]) == known
    others = [
        of([LISTED, changed]),
        of([LISTED]),
        of([LISTED, LISTED[:-1]]),
        of([LISTED, LISTED], changed),
        of([LISTED, LISTED], LISTED, [LISTED, []]),
        of([(X, Y), (X, Y)]),
        of([(X, Y), (X + 1e-6, Y)]),
    ]
    assert len({known, *others}) == len(others) + 1


def test_the_fingerprint_of_samples_that_are_drawn_anew_is_the_same_and_leaves_the_generators_alone():
    class Noisy(Sentences):
        def __getitem__(self, index):
            words, tags = super().__getitem__(index)
            return words + torch.rand(()), tags

    state = torch.get_rng_state()
    prints = {Datasets([Noisy(0)], Noisy(1)).population().fingerprint for _ in range(2)}
    assert len(prints) == 1
    assert torch.equal(torch.get_rng_state(), state)


def test_a_client_that_cannot_be_read_has_a_fingerprint_and_is_left_to_the_rounds():
    class Broken(Sentences):
        def __getitem__(self, index):
            raise OSError("the file is gone")

    def of(*train):
        return Datasets(train, Sentences(9)).population()

    broken = of(Sentences(0), Broken(1))
    assert broken.fingerprint == of(Sentences(0), Broken(1)).fingerprint
    assert broken.fingerprint != of(Sentences(0), Sentences(1)).fingerprint
    with pytest.raises(OSError, match="the file is gone"):
        broken.train(1).take(np.arange(2))


def test_another_device_gets_what_is_drawn():
    population = sentences().population()
    ahead = AheadPopulation(population, "meta")
    ahead.announce([1])
    assert len(ahead.train(1)) == 9
    assert {part.device.type for part in ahead.train(2).take(np.arange(3))} == {"meta"}
    assert {part.device.type for part in whole(population.to("meta").test)} == {"meta"}
    tensors = Datasets([(X, Y)], (X, Y)).population().to("meta")
    assert {part.device.type for part in (*tensors.train(0).all(), *whole(tensors.test))} == {"meta"}


class Endless(IterableDataset):
    def __iter__(self):
        return iter(LISTED)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"train": []}, "train.*at least one client"),
        ({"train": [[]]}, r"train\[0\].*one sample or more"),
        ({"train": "text"}, "train.*a list with what each client holds"),
        ({"train": [LISTED], "test": []}, "test.*one sample or more"),
        ({"train": [LISTED], "held_out": [LISTED, LISTED]}, "held_out.*1, as many"),
        ({"train": [LISTED], "clients": 3}, "train.*3, as many"),
        ({"train": lambda client: LISTED}, "clients.*since train is a function"),
        ({"train": [(X, Y[:2])]}, "one first dimension"),
        ({"train": [LISTED, DataLoader(LISTED)]}, r"train\[1\]: got 'a DataLoader'.*loader\.dataset"),
        ({"train": [LISTED], "held_out": [DataLoader(LISTED)]}, r"held_out\[0\]: got 'a DataLoader'"),
        ({"train": [LISTED], "test": DataLoader(LISTED)}, "test: got 'a DataLoader'"),
        ({"train": [LISTED], "test": Endless()}, "Read an iterable one into a list"),
        ({"train": [3]}, r"train\[0\]: got 3; expected a Dataset, a list of samples, or tensors"),
    ],
)
def test_what_is_no_federation_is_refused(arguments, told):
    with pytest.raises(InputError, match=told):
        Datasets(**{"test": LISTED, **arguments})


def test_what_holds_no_samples_is_refused_when_it_is_asked_for():
    with pytest.raises(InputError, match=r"train\[0\]: got 'a DataLoader'"):
        Datasets(lambda client: DataLoader(LISTED), LISTED, clients=2).population().train(0)
    with pytest.raises(InputError, match=r"train\[0\].*one sample or more"):
        Datasets(lambda client: [], LISTED, clients=2).population().train(0)


def test_data_are_shown_by_their_numbers_and_not_by_their_content():
    held = [(torch.zeros(3, 2), torch.zeros(3))] * 50
    shown = "Datasets of 50 clients with no tests of their own, and a test of 3 samples"
    assert repr(Datasets(train=held, test=held[0])) == shown
    assert "50 clients with tests of their own" in repr(Datasets(train=held, test=held[0], held_out=held))
