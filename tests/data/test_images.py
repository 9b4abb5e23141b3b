"""Images as samples: the digits, the test that is kept, the channels' statistics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedtlu_fast import InputError
from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.federation import load_federation
from fedtlu_fast.data.images import ImageSet, cut_test, load_digits, statistics
from fedtlu_fast.settings import load_config, parse_config


def a_set(codes):
    """Images that show their own number."""
    codes = np.asarray(codes, np.int64)
    images = np.arange(len(codes), dtype=np.uint8).reshape(-1, 1, 1, 1)
    domains = Attribute(np.arange(len(codes)) % 3, ("a", "b", "c"))
    return ImageSet(images, Attribute(codes, tuple("0123456789")), {"domain": domains})


def test_the_digits_are_all_there_and_their_greys_are_spread():
    found = load_digits()
    assert (found.images.shape, found.images.dtype) == ((1797, 1, 8, 8), np.uint8)
    assert sorted(set(found.images.reshape(-1).tolist())) == [round(shade * 255 / 16) for shade in range(17)]
    assert found.label.names == tuple("0123456789")
    counts = np.bincount(found.label.codes)
    assert (len(counts), counts.sum()) == (10, 1797)
    assert counts.min() > 170
    # The first is a nought: dark around, light in the middle.
    assert found.label.codes[0] == 0
    assert found.images[0, 0, 3:5, 3:5].max() < 0.2 * found.images.max()


@given(st.lists(st.integers(0, 9), min_size=2, max_size=200), st.floats(0.05, 0.95))
def test_a_share_of_every_label_is_kept_for_the_test(codes, share):
    if not 1 <= int(len(codes) * share) < len(codes):
        return
    whole = a_set(codes)
    train, test = cut_test(whole, share)
    numbers = [part.images.reshape(-1).tolist() for part in (train, test)]
    assert sorted(numbers[0] + numbers[1]) == list(range(len(codes)))
    assert numbers[0] == sorted(numbers[0])
    assert len(numbers[1]) == int(len(codes) * share)
    for part, own in zip((train, test), numbers, strict=True):
        assert part.label.codes.tolist() == [codes[number] for number in own]
        assert part.attributes["domain"].codes.tolist() == [number % 3 for number in own]
    for code in set(codes):
        kept = int((test.label.codes == code).sum())
        assert abs(kept - codes.count(code) * share) < 1.001


@pytest.mark.parametrize("share", [0.01, 0.001])
def test_a_share_that_keeps_nothing_is_refused(share):
    with pytest.raises(InputError, match=r"data.test_fraction.*a share of 9 images"):
        cut_test(a_set([0, 1, 2] * 3), share)


def test_the_test_is_the_same_for_every_seed_and_spread_over_the_set():
    sets = [
        load_federation(load_config("digits", overrides=[f"seed={seed}"])).population for seed in (0, 0, 1)
    ]
    assert len(sets[0].test[0]) == int(1797 * 0.2)
    assert all(sets[0].test[0].equal(other.test[0]) for other in sets)
    assert sets[0].fingerprint == sets[1].fingerprint != sets[2].fingerprint
    _, test = cut_test(a_set([0] * 200), 0.25)
    halves = (test.images < 100).sum() / 50
    assert 0.2 < halves < 0.8


@settings(max_examples=40)
@given(hnp.arrays(np.uint8, st.tuples(*(st.integers(1, 4) for _ in range(4)))))
def test_statistics_are_those_of_every_channels_pixels(images):
    means, spreads = statistics(images)
    exact = images.astype(np.float64)
    assert means == pytest.approx(exact.mean(axis=(0, 2, 3)).tolist())
    expected = exact.std(axis=(0, 2, 3))
    assert spreads == pytest.approx(np.where(expected == 0, 1, expected).tolist())


def test_statistics_of_many_images_are_counted_part_by_part():
    images = np.zeros((3000, 2, 1, 1), np.uint8)
    images[1500:, 0] = 255
    assert statistics(images) == ((127.5, 0.0), (127.5, 1.0))


def test_digits_are_dealt_by_label_and_too_many_clients_are_told():
    found = load_federation(load_config("digits"))
    assert list(found.attributes) == ["label"]
    assert (found.inputs, found.outputs) == (64, 10)
    with pytest.raises(InputError, match=r"images for 4000 samples .* 1438 to train on and 359 to test"):
        load_federation(load_config("digits", overrides=["clients=1000"]))


@pytest.mark.parametrize("source", ["digits:here", "images", "nothing"])
def test_an_unknown_source_is_told(source):
    settings = {"task": "image_classification", "data": {"source": source}}
    with pytest.raises(InputError, match=r"data.source"):
        load_federation(parse_config(settings))


def test_digits_as_a_task_stands_for_task_and_source():
    found = parse_config({"task": "digits"})
    assert (found.task, found.data.source) == ("image_classification", "digits")
    assert parse_config({"task": "image_classification"}) == found
    with pytest.raises(InputError, match=r"data.source: got 'pydoc'; expected none but digits"):
        parse_config({"task": "digits", "data": {"source": "pydoc"}})
