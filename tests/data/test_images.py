"""Images as samples: the digits, the test that is drawn, the channels' statistics."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import datasets
from support.sampling import examples
from support.sources import read_images

from fedtlu_fast import InputError
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import load_config, parse_config
from fedtlu_fast.data.images import statistics
from fedtlu_fast.data.sources.digits import Digits, read_digits


def test_all_digits_are_read_and_their_greys_are_scaled():
    found = read_images("digits")[0]
    assert (found.images.shape, found.images.dtype) == ((1797, 1, 8, 8), np.uint8)
    assert sorted(set(found.images.reshape(-1).tolist())) == [round(shade * 255 / 16) for shade in range(17)]
    assert found.attributes["label"].names == tuple("0123456789")
    counts = np.bincount(found.attributes["label"].codes)
    assert (len(counts), counts.sum()) == (10, 1797)
    assert counts.min() > 170
    # The first digit is a zero: its ring is light, its middle is dark.
    assert found.attributes["label"].codes[0] == 0
    assert found.images[0, 0, 3:5, 3:5].max() < 0.2 * found.images.max()


def test_the_test_is_the_same_for_every_seed():
    sets = [
        load_federation(load_config("digits", overrides=[f"seed={seed}"])).population for seed in (0, 0, 1)
    ]
    assert len(sets[0].test[0]) == int(1797 * 0.2)
    assert all(sets[0].test[0].equal(other.test[0]) for other in sets)
    assert sets[0].fingerprint == sets[1].fingerprint != sets[2].fingerprint


@examples(40)
@given(hnp.arrays(np.uint8, st.tuples(*(st.integers(1, 4) for _ in range(4)))))
def test_statistics_equal_those_of_each_channels_pixels(images):
    means, spreads = statistics(images)
    exact = images.astype(np.float64)
    assert means == pytest.approx(exact.mean(axis=(0, 2, 3)).tolist())
    expected = exact.std(axis=(0, 2, 3))
    assert spreads == pytest.approx(np.where(expected == 0, 1, expected).tolist())


def test_statistics_of_many_images_are_counted_part_by_part():
    images = np.zeros((3000, 2, 1, 1), np.uint8)
    images[1500:, 0] = 255
    assert statistics(images) == ((127.5, 0.0), (127.5, 1.0))


def test_digits_are_dealt_by_label_and_too_many_clients_are_refused():
    found = load_federation(load_config("digits"))
    assert list(found.attributes) == ["label"]
    assert (found.inputs, found.outputs) == (64, 10)
    with pytest.raises(InputError, match=r"images for 4000 .* 1438 samples to train on and 359 to test"):
        load_federation(load_config("digits", overrides=["clients=1000"]))


def test_digits_are_those_of_scikit_learn_and_read_without_it():
    shades, labels = datasets.load_digits(return_X_y=True)
    code = "import sys; from fedtlu_fast.data.sources.digits import read_digits\n"
    code += "read_digits(); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    found = read_digits()
    assert found[1].dtype == np.int64
    np.testing.assert_array_equal(found[0], shades)
    np.testing.assert_array_equal(found[1], labels)


def test_digits_whose_file_lies_elsewhere_are_asked_of_scikit_learn(monkeypatch):
    here = read_digits()
    monkeypatch.setattr("fedtlu_fast.data.sources.digits.find_spec", lambda name: None)
    for found, expected in zip(read_digits(), here, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("source", ["digits:here", "images", "nothing"])
def test_an_unknown_source_is_refused(source):
    settings = {"task": "image_classification", "data": {"source": source}}
    with pytest.raises(InputError, match=r"data.source"):
        load_federation(parse_config(settings))


def test_digits_as_a_task_stands_for_task_and_source():
    found = parse_config({"task": "digits"})
    assert (found.task, found.data.source) == ("image_classification", Digits())
    assert parse_config({"task": "image_classification"}) == found
    with pytest.raises(InputError, match=r"data.source: got 'pydoc'; expected digits with"):
        parse_config({"task": "digits", "data": {"source": "pydoc"}})


def test_digits_can_be_scaled():
    found, test = read_images("digits", 5)
    assert (found.images.shape, test) == ((1797, 1, 5, 5), None)
    assert found.images.mean() == pytest.approx(read_images("digits")[0].images.mean(), rel=0.05)
