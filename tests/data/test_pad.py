"""The default collate function: forms, filling up, and invalid samples."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedtlu_fast.data.form import flattened, form_of_columns, rebuilt, words
from fedtlu_fast.data.pad import Pad
from fedtlu_fast.errors import InputError


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5))
def test_inputs_are_filled_up_with_the_padding_and_integer_targets_with_the_ignored_label(sentences):
    inputs, targets = Pad(padding=7)([(own, [1] * len(own)) for own in sentences])
    longest = max(map(len, sentences))
    assert inputs.tolist() == [own + [7] * (longest - len(own)) for own in sentences]
    assert targets.tolist() == [[1] * len(own) + [-100] * (longest - len(own)) for own in sentences]


def test_every_dimension_is_filled_up():
    found = Pad()([torch.ones(1, 3), torch.ones(2, 1)])
    assert found.tolist() == [[[1, 1, 1], [0, 0, 0]], [[1, 0, 0], [1, 0, 0]]]


def test_dictionaries_keep_their_keys_and_masks_get_zeros():
    samples = [
        {"ids": [4, 5], "mask": [1, 1], "labels": np.array([1, 2])},
        {"ids": [6], "mask": [1], "labels": np.array([3])},
    ]
    found = Pad(padding=9, ignore=-1)(samples)
    assert {key: own.tolist() for key, own in found.items()} == {
        "ids": [[4, 5], [6, 9]],
        "mask": [[1, 1], [1, 0]],
        "labels": [[1, 2], [3, -1]],
    }


def test_numbers_and_lone_tensors():
    assert Pad()([1, 2, 3]).tolist() == [1, 2, 3]
    features, labels = Pad()([(torch.zeros(2), 4), (torch.ones(2), 5)])
    assert (features.tolist(), labels.tolist()) == ([[0, 0], [1, 1]], [4, 5])


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([("text", 1)], "a tensor, an array or numbers"),
        (
            [(torch.zeros(2), torch.zeros(1)), (torch.zeros(2), torch.zeros(2))],
            "float32 targets of different",
        ),
        ([torch.zeros(2), torch.zeros(1, 2)], "number of dimensions"),
        ([{"a": 1}, {"b": 1}], "keys"),
        ([(1, 2), (1, 2, 3)], "a tuple of 2"),
    ],
)
def test_samples_that_cannot_form_a_batch_are_refused(samples, told):
    with pytest.raises(InputError, match=told):
        Pad()(samples)


def test_a_batch_is_rebuilt_in_its_form():
    x, y, z = torch.zeros(2), torch.ones(2), torch.full((2,), 2.0)
    for value in (x, (x,), (x, y), [x, {"b": y, "a": (z,)}], {"labels": x, "ids": y}):
        batch, form = flattened(value)
        again = rebuilt(batch, form)
        assert flattened(again)[1] == form
        assert all(a is b for a, b in zip(flattened(again)[0], batch, strict=True))
    assert words(flattened([x, {"b": y, "a": (z,)}])[1]) == "(tensor, {'a': (tensor), 'b': tensor})"
    assert (form_of_columns(1), form_of_columns(2)) == (0, (0, 1))


def test_a_batch_holds_tensors_only():
    with pytest.raises(InputError, match=r"batch\['text'\].*collate_fn"):
        flattened({"ids": torch.zeros(2), "text": "words"})
    with pytest.raises(InputError, match="at least one tensor"):
        flattened({})
