"""Tests which calls `train_perceptrons` refuses: nothing may crash, and a refusal writes nothing."""

import random

import numpy as np
import pytest
from support.sampling import seed

_native = pytest.importorskip("fedtlu_fast._native", reason="the C++ extension is not built")

STEPS = {"adamw": False, "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "proximal": 0.0, "clip": 0.0}
SIZE = 3 * 4 + 4 + 4 * 2 + 2


def arguments():
    """Returns the arguments for two clients of a perceptron 3-4-2, with two batches and one."""
    return {
        "params": np.linspace(-1, 1, SIZE, dtype=np.float32),
        "layers": np.array([3, 4, 0, 12, 4, 2, 16, 24]),
        "steps": dict(STEPS),
        "features": np.arange(15, dtype=np.float32),
        "labels": np.array([0, 1, 1, 0, 1]),
        "rows": np.array([4, 0, 1, 2, 2]),
        "starts": np.array([0, 2, 3, 5]),
        "firsts": np.array([0, 2, 3]),
        "weights": np.array([2.0, 3.0]),
        "change": np.full(SIZE, 7.0, dtype=np.float32),
        "own": np.full(SIZE, 7.0, dtype=np.float32),
    }


def test_the_arguments_are_valid():
    given = arguments()
    losses, finite = _native.train_perceptrons(**given)
    assert losses.shape == finite.shape == (2,)
    assert finite.all()
    assert (losses > 0).all()
    assert not (given["change"] == 7).any()
    assert not (given["own"] == 7).any()
    first = given["change"].copy()
    _native.train_perceptrons(**{**given, "own": None})
    assert np.array_equal(given["change"], first)


ODD = {
    "params": [np.zeros(SIZE), np.zeros(SIZE - 1, np.float32), np.zeros((SIZE, 1), np.float32), None],
    "layers": [
        np.array([], dtype=np.int64),
        np.array([3, 4, 0]),
        np.array([3, 4, 0, 12, 5, 2, 16, 24]),
        np.array([3, 4, 0, 12, 4, 2, 17, 25]),
        np.array([3, 0, 0, 12, 0, 2, 16, 24]),
        np.array([3, 4, -1, 12, 4, 2, 16, 24]),
        np.array([SIZE, SIZE, 0, 0]),
        np.array([3, 4, 0, 12, 4, 2, 16, 24], dtype=np.int32),
        [3, 4, 0, 12],
    ],
    "steps": [{}, {**STEPS, "lr": -1.0}, {**STEPS, "clip": float("nan")}, {**STEPS, "momentum": "x"}, None],
    "features": [np.zeros(14, np.float32), np.zeros(15), np.zeros(0, np.float32)],
    "labels": [np.array([0, 1, 2, 0, 1]), np.array([0, -1, 1, 0, 1]), np.array([0, 1]), np.zeros(5)],
    "rows": [np.array([5, 0, 1, 2, 2]), np.array([-1, 0, 1, 2, 2]), np.array([0, 1]), np.zeros(5)],
    "starts": [
        np.array([0, 2, 2, 5]),
        np.array([0, 2, 3, 4]),
        np.array([1, 2, 3, 5]),
        np.array([0, 5, 3, 5]),
    ],
    "firsts": [np.array([0, 2]), np.array([0, 3, 3]), np.array([0]), np.array([], dtype=np.int64)],
    "weights": [np.array([1.0]), np.ones(2, np.float32), np.ones((2, 1))],
    "change": [np.zeros(SIZE), np.zeros(SIZE + 1, np.float32), None],
    "own": [np.zeros(SIZE), np.zeros(SIZE - 1, np.float32), 3],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in ODD.items() for value in values],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_an_argument_that_does_not_fit_is_refused(name, value):
    given = {**arguments(), name: value}
    with pytest.raises((TypeError, ValueError, KeyError)):
        _native.train_perceptrons(**given)
    for target in ("change", "own"):
        if target != name:
            assert (given[target] == 7).all()


def test_read_only_and_overlapping_targets_are_refused():
    given = arguments()
    given["change"].flags.writeable = False
    with pytest.raises(ValueError, match="change: expected writable"):
        _native.train_perceptrons(**given)
    given = arguments()
    memory = np.zeros(SIZE + 1, dtype=np.float32)
    given["params"], given["change"] = memory[:-1], memory[1:]
    with pytest.raises(ValueError, match="change: expected memory that does not overlap params"):
        _native.train_perceptrons(**given)


class Resizing:
    """Poses as a number, but resizes an array when it is asked for its value."""

    def __init__(self, array):
        self.array = array

    def __float__(self):
        self.array.resize(4, refcheck=False)
        return 0.1


@pytest.mark.parametrize("number", ["lr", "clip"])
@pytest.mark.parametrize(
    "name", ["params", "features", "change", "own", "weights", "labels", "rows", "starts", "firsts"]
)
def test_code_that_runs_while_arguments_are_read_cannot_free_their_memory(name, number):
    given = arguments()
    owner = np.resize(given[name], 4096)
    # A view has no memory of its own: nothing in it would show that its owner's is gone.
    given[name] = owner[: len(given[name])]
    given["steps"][number] = Resizing(owner)
    with pytest.raises(ValueError, match=r"cannot resize"):
        _native.train_perceptrons(**given)


@pytest.mark.parametrize("name", ["params", "features", "change", "own"])
def test_memory_that_is_not_aligned_is_refused(name):
    given = arguments()
    memory = np.zeros(given[name].nbytes + 1, dtype=np.uint8)
    given[name] = memory[1:].view(np.float32)
    with pytest.raises(ValueError, match=f"{name}: expected aligned"):
        _native.train_perceptrons(**given)


def test_outputs_that_lie_in_inputs_or_each_other_are_refused():
    memory = np.zeros(2 * SIZE, dtype=np.float32)
    for over in (
        {"change": memory[:SIZE], "own": memory[:SIZE]},
        {"change": memory[:SIZE], "features": memory[:15]},
        {"own": memory[:SIZE], "features": memory[:15]},
        {"own": memory[:SIZE], "params": memory[:SIZE]},
    ):
        with pytest.raises(ValueError, match="does not overlap"):
            _native.train_perceptrons(**{**arguments(), **over})
    assert not memory.any()


def test_random_numbers_in_any_place_do_not_crash():
    """Each call is answered or refused; an answer uses the arrays' memory only (see .ci/fuzz)."""
    draws = random.Random(seed())
    answered = 0
    for _ in range(3000):
        given = arguments()
        for _ in range(draws.randrange(1, 3)):
            name = draws.choice(["layers", "labels", "rows", "starts", "firsts", "params", "features"])
            place = draws.randrange(len(given[name]))
            given[name][place] = draws.choice([-1, 0, 1, 2, 3, 4, 5, 12, SIZE, 2**31, *(2**62,) * 2])
        try:
            losses, _ = _native.train_perceptrons(**given)
        except ValueError:
            continue
        answered += 1
        assert losses.shape == (len(given["firsts"]) - 1,)
    assert 100 < answered < 2900
