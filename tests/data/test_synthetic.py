"""Synthetic clients: a pure function of seed and client, whose cost does not depend on their number."""

import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import InputError, simulate
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.sources.synthetic import TEST_CLIENTS, TEST_SAMPLES, SyntheticPopulation

seeds = st.integers(0, 2**40)
numbers = st.integers(0, 10**9 - 1)


def tree(**over):
    settings = {
        "task": "classification",
        "clients": 50,
        "cohort": 4,
        "rounds": 2,
        "data": {"source": "synthetic", "classes": 5, "synthetic": {"features": 6}},
        "model": {"hidden": [4]},
        "selection": {"selector": "full"},
        "execution": {"executor": "serial"},
    }
    for key, value in over.items():
        settings[key] = {**settings[key], **value} if isinstance(settings.get(key), dict) else value
    return settings


def population(clients=50, seed=0, local_fraction=0.2, classes=5, **rule):
    data = {"local_fraction": local_fraction, "classes": classes}
    config = parse_config(
        tree(clients=clients, seed=seed, data={**data, "synthetic": {"features": 6, **rule}})
    )
    return SyntheticPopulation(config.data.source, config.clients, config.seed, local_fraction)


def held(samples):
    return [part.numpy() for part in samples.all()]


def everything(own, client):
    return [*held(own.train(client)), *held(own.held_out(client))]


def rows(features):
    return {row.tobytes() for row in features}


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_sizes_equal_those_of_clients_that_are_made():
    for local_fraction in (0.05, 0.25, 0.5, 0.95):
        made = population(40, local_fraction=local_fraction, fewest=2, most=30)
        assert made.sizes().tolist() == [len(made.train(client)) for client in range(40)]


# --- a pure function of seed and client ----------------------------------------------------------


@examples(40)
@given(seeds, st.lists(numbers, min_size=1, max_size=6), st.randoms())
def test_a_client_is_the_same_in_any_order_and_among_any_number_of_clients(seed, clients, random):
    first = population(10**9, seed)
    expected = {client: everything(first, client) for client in clients}
    other = population(10**9 + random.randrange(1000), seed)
    shuffled = random.sample(clients * 2, len(clients) * 2)
    for client in shuffled:
        if random.random() < 0.3:
            _ = other.test
        assert same(everything(other, client), expected[client])


@examples(30)
@given(seeds, numbers, st.integers(1, 1000))
def test_other_seeds_and_clients_hold_other_samples(seed, client, step):
    own = population(2 * 10**9, seed)
    features = rows(held(own.train(client))[0])
    for other in (own.train(client + step), population(2 * 10**9, seed + step).train(client)):
        assert not rows(held(other)[0]) & features


def test_global_generators_are_untouched_and_do_not_matter():
    own = population()
    torch.manual_seed(1)
    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = everything(own, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert same(everything(population(), 3), first)


# --- sizes, shapes, splits -----------------------------------------------------------------------


@examples(60)
@given(
    seeds,
    st.integers(2, 30),
    st.integers(0, 30),
    st.floats(0.001, 0.999),
    st.integers(1, 9),
    st.integers(2, 12),
)
@example(seed=0, fewest=2, more=0, fraction=0.999, features=1, classes=2)
def test_every_client_trains_on_something_and_the_sizes_are_in_bounds(
    seed, fewest, more, fraction, features, classes
):
    own = population(
        seed=seed,
        local_fraction=fraction,
        classes=classes,
        fewest=fewest,
        most=fewest + more,
        features=features,
    )
    for client in range(12):
        trained, tested = own.train(client), own.held_out(client)
        size = len(trained) + len(tested)
        assert fewest <= size <= fewest + more
        assert len(trained) >= 1
        assert len(tested) == min(round(size * fraction), size - 1)
        x, y = trained.all()
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert x.shape == (len(trained), features)
        assert y.min() >= 0
        assert y.max() < classes
        assert torch.isfinite(x).all()


def test_both_bounds_are_reached():
    own = population(fewest=3, most=5)
    sizes = {len(own.train(k)) + len(own.held_out(k)) for k in range(50)}
    assert sizes == {3, 4, 5}


@examples(30)
@given(seeds, numbers, st.floats(0.05, 0.95))
def test_training_and_test_samples_are_the_clients_samples_cut_in_two(seed, client, fraction):
    own = population(10**9, seed, fraction)
    trained, tested = own.train(client), own.held_out(client)
    assert sorted([*trained.rows, *tested.rows]) == list(range(len(trained) + len(tested)))
    assert not rows(held(trained)[0]) & rows(held(tested)[0])


def test_no_client_holds_samples_of_the_global_test():
    own = population(200)
    features, labels = (part.numpy() for part in own.test)
    assert features.shape == (TEST_CLIENTS * TEST_SAMPLES, 6)
    assert labels.shape == (len(features),)
    assert set(labels) <= set(range(5))
    for client in range(200):
        for samples in (own.train(client), own.held_out(client)):
            assert not rows(held(samples)[0]) & rows(features)
    assert same([part.numpy() for part in population(7).test], [features, labels])


def test_labels_are_a_linear_model_of_the_features():
    """FedProx's rule: every client has one linear model, which fits its labels without an error."""
    own = population(fewest=400, most=400, features=3, classes=2)
    for client in range(5):
        x, y = held(own.train(client))
        if len(set(y)) == 1:
            continue
        # The perceptron algorithm ends after finitely many mistakes if and only if the labels are separable.
        inputs, signs = np.c_[x, np.ones(len(x))].astype(np.float64), np.where(y == 1, 1.0, -1.0)
        weight = np.zeros(4)
        for _ in range(20_000):
            wrong = np.flatnonzero(signs * (inputs @ weight) <= 0)
            if not len(wrong):
                break
            weight += signs[wrong[0]] * inputs[wrong[0]]
        assert not len(wrong)


# --- what the two spreads do ---------------------------------------------------------------------


def means(own, clients):
    """Returns [K, F], the mean sample of every client."""
    return np.stack(
        [np.concatenate([held(own.train(k))[0], held(own.held_out(k))[0]]).mean(0) for k in clients]
    )


@pytest.mark.parametrize("variance", [0.0, 1.0, 25.0])
def test_beta_is_the_variance_of_the_clients_mean_inputs(variance):
    own = population(400, features=40, input_variance=variance, fewest=60, most=60)
    centres = means(own, range(400))
    # The tolerance includes the sampling noise of 60 samples, which is below 1 / 60.
    assert np.var(centres) == pytest.approx(variance, rel=0.1, abs=1 / 60)
    assert abs(centres.mean()) < 5 * np.sqrt((variance + 1 / 60) / 400)


def test_beta_moves_the_clients_apart_and_leaves_each_client_as_it_is():
    near, far = (population(input_variance=variance) for variance in (0.0, 100.0))
    for client in range(5):
        one, two = held(near.train(client))[0], held(far.train(client))[0]
        shift = two - one
        assert np.allclose(shift, shift[0], atol=1e-4), "all samples of a client move alike"
        assert np.abs(shift[0]).max() > 1


def test_later_features_spread_less():
    own = population(features=30, fewest=4000, most=4000)
    x = held(own.train(0))[0]
    assert np.allclose(x.std(axis=0), np.arange(1, 31) ** -0.6, rtol=0.1)


def test_variances_of_zero_are_allowed_and_give_several_labels():
    own = population(model_variance=0, input_variance=0, fewest=40, most=40)
    labels = np.concatenate([held(own.train(k))[1] for k in range(50)])
    assert len(set(labels)) == 5


def test_alpha_decides_how_much_the_clients_models_differ():
    """One linear model fits all clients if alpha is 0, and fewer of them the larger alpha is."""

    def fit(variance):
        own = population(model_variance=variance, input_variance=0, fewest=60, most=60)
        x, y = (np.concatenate(parts) for parts in zip(*(held(own.train(k)) for k in range(50)), strict=True))
        inputs = np.c_[x, np.ones(len(x))]
        common, *_ = np.linalg.lstsq(inputs, np.eye(5)[y], rcond=None)
        return ((inputs @ common).argmax(1) == y).mean()

    alike, near, far = fit(0.0), fit(0.1), fit(100.0)
    assert alike > near > far
    assert alike > 0.8
    assert far < 0.5


# --- any number of clients -----------------------------------------------------------------------


def test_a_billion_clients_cost_nothing():
    tracemalloc.start()
    start = time.perf_counter()
    data = load_federation(parse_config(tree(clients=10**9)))
    first, last = (data.population.train(client) for client in (0, 10**9 - 1))
    taken, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.population.clients == 10**9
    assert min(len(first), len(last)) >= 1
    assert (data.inputs, data.outputs) == (6, 5)
    assert peak < 2**20
    assert taken < 1


def test_a_run_draws_from_all_of_them():
    result = simulate(tree(clients=10**9))
    drawn = [client for row in result.selection for client in row["cohort"]]
    assert len(set(drawn)) == 8
    assert max(drawn) > 10**6
    assert np.isfinite(result.summary["local_loss"])


def test_learning_works():
    """Training from random weights lowers the loss, so labels follow from features."""
    over = {"training": {"lr": 0.1, "local_epochs": 2}, "cohort": 20, "rounds": 15}
    spread = {"synthetic": {"features": 6, "model_variance": 0, "input_variance": 0}}
    result = simulate(tree(**over, data=spread))
    assert result.metrics[-1]["train_loss"] < 0.9 * result.metrics[0]["train_loss"]


# --- the fingerprint, the settings ---------------------------------------------------------------


def test_the_fingerprint_depends_on_rule_seed_and_size():
    prints = {
        population().fingerprint,
        population(seed=1).fingerprint,
        population(clients=51).fingerprint,
        population(classes=6).fingerprint,
        population(local_fraction=0.3).fingerprint,
        population(features=7).fingerprint,
        population(model_variance=2).fingerprint,
        population(input_variance=2).fingerprint,
        population(fewest=19).fingerprint,
        population(most=41).fingerprint,
    }
    assert len(prints) == 10
    assert population().fingerprint in prints
    assert replace(population(), device="meta").fingerprint == population().fingerprint


def test_samples_go_to_the_device():
    own = population().to("meta")
    for batch in (own.test, own.train(0).pool, own.held_out(0).pool):
        assert {part.device.type for part in batch} == {"meta"}


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"task": "language_modelling"}, "task: got 'language_modelling'; expected classification"),
        ({"data": {"synthetic": {"fewest": 9, "most": 8}}}, "most: got 8; expected at least 9, as in fewest"),
        ({"data": {"synthetic": {"fewest": 1}}}, "data.synthetic.fewest: got 1"),
        ({"data": {"synthetic": {"input_variance": -1}}}, "data.synthetic.input_variance: got -1"),
    ],
    ids=["task", "most", "fewest", "variance"],
)
def test_invalid_settings_are_refused(over, message):
    with pytest.raises(InputError, match=message):
        load_federation(parse_config(tree(**over)))
