"""Bytes and FLOPs of rounds, counted by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtlu_fast import InputError
from fedtlu_fast.clients.training import batches
from fedtlu_fast.config import TrainingConfig
from fedtlu_fast.costs.blocks import BlockCosts, Kept
from fedtlu_fast.costs.rounds import round_costs, run_costs, samples_processed
from fedtlu_fast.randomness import generator

COSTS = BlockCosts(
    names=("embedding", "h.0", "h.1", "head"),
    parameters=np.array([10, 20, 20, 5]),
    buffers=3,
    forward=100.0,
    weight=np.array([0.0, 40.0, 40.0, 10.0]),
    reach=np.array([95.0, 95.0, 50.0, 0.0]),
)
MASKS = np.array([[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]], bool)


def test_backward_goes_down_to_the_lowest_block() -> None:
    assert COSTS.backward(MASKS).tolist() == [50 + 50, 95 + 50, 10]
    assert COSTS.backward(np.ones(4, bool)) == 95 + 90
    assert COSTS.backward(np.zeros((2, 4), bool)).tolist() == [0, 0]


def test_a_round_by_hand() -> None:
    found = round_costs(COSTS, MASKS, [8, 4, 2], probe_samples=[3, 3])
    assert found.bytes_up.tolist() == [4 * (25 + 3), 4 * (25 + 3), 4 * (5 + 3)]
    assert found.bytes_down == 3 * 4 * (55 + 3)
    assert found.bytes_published == 4 * (20 + 20 + 5 + 3)
    assert found.forward.tolist() == [800, 400, 200]
    assert found.backward.tolist() == [8 * 100, 4 * 145, 2 * 10]
    assert (found.probe_forward, found.probe_backward) == (600, 6 * 185)
    assert found.probe_bytes_up == 2 * 4 * 4
    assert found.row() == {
        "bytes_down": 696,
        "bytes_published": 192,
        "bytes_up": 4 * 64 + 32,
        "forward_flops": 1400 + 600,
        "backward_flops": 800 + 580 + 20 + 1110,
        "probe_bytes_up": 32,
        "probe_flops": 600 + 1110,
    }


def test_probes_of_clients_that_choose_themselves_are_not_sent() -> None:
    found = round_costs(COSTS, MASKS, [8, 4, 2], probe_samples=[3, 3], probes_sent=False)
    assert (found.probe_bytes_up, found.probe_backward) == (0, 6 * 185)


def test_the_published_change_may_be_smaller_than_the_sent_one() -> None:
    found = round_costs(COSTS, np.ones((3, 4), bool), [1, 1, 1], published=[False, True, False, True])
    assert found.bytes_published == 4 * (25 + 3)
    assert found.bytes_up.tolist() == [4 * 58] * 3


def test_a_round_without_clients_costs_nothing() -> None:
    found = round_costs(COSTS, np.zeros((0, 4), bool), [])
    assert set(found.row().values()) == {0}


@given(st.lists(st.booleans(), min_size=4, max_size=4), st.integers(0, 3))
def test_another_block_never_costs_less(chosen: list[bool], more: int) -> None:
    before, after = np.array(chosen), np.array(chosen)
    after[more] = True
    assert COSTS.backward(after) >= COSTS.backward(before)


@pytest.mark.parametrize(
    ("masks", "samples", "probes"),
    [
        (np.ones((2, 3), bool), [1, 1], []),
        (np.ones((2, 4), bool), [1], []),
        (np.ones((2, 4)), [1, 1], []),
        (np.ones(4, bool), [1], []),
        (np.ones((2, 4), bool), [1, -1], []),
        (np.ones((2, 4), bool), [1, 1], [-1]),
    ],
)
def test_what_does_not_fit_is_refused(masks: Any, samples: list[int], probes: list[int]) -> None:
    with pytest.raises(InputError):
        round_costs(COSTS, masks, samples, probes)


def test_a_log_is_read() -> None:
    training = TrainingConfig(batch_size=4, local_epochs=1.0).local
    sizes = {7: 10, 2: 3}
    rows = [
        {"round": 1, "cohort": [7, 2], "selected": list(COSTS.names)},
        {
            "round": 2,
            "cohort": [2, 7],
            "selected": ["h.1", "head"],
            "client_blocks": [[3], [2, 3]],
            "probed": [2, 7],
        },
        {"round": 3, "cohort": [], "selected": [], "client_blocks": [], "probed": []},
    ]
    full, chosen, nobody = run_costs(COSTS, rows, training, sizes.__getitem__, probe_batches=1)
    assert full.row() == round_costs(COSTS, np.ones((2, 4), bool), [10, 3]).row()
    assert chosen.row() == round_costs(COSTS, MASKS[[2, 0]], [3, 10], [3, 4]).row()
    assert set(nobody.row().values()) == {0}
    assert chosen.bytes_up.tolist() == [4 * 8, 4 * 28]


def test_forward_passes_over_samples_that_clients_look_at_count() -> None:
    training = TrainingConfig(batch_size=4, local_epochs=1.0).local
    rows = [
        {"round": 1, "cohort": [7, 2], "selected": list(COSTS.names)},
        {"round": 2, "cohort": [2, 7], "selected": [], "client_blocks": [[3], [2, 3]]},
    ]
    plain = run_costs(COSTS, rows, training, {7: 10, 2: 3}.__getitem__)
    looking = run_costs(COSTS, rows, training, {7: 10, 2: 3}.__getitem__, looked_at={7: 20, 2: 6}.__getitem__)
    assert looking[0].row() == plain[0].row(), "nobody chooses in a warm-up"
    expected = plain[1].row()
    expected["forward_flops"] += 26 * COSTS.forward
    expected["probe_flops"] += 26 * COSTS.forward
    assert looking[1].row() == expected


def test_sent_blocks_count_as_bytes_and_trained_blocks_as_flops() -> None:
    row = {"round": 1, "cohort": [0, 1], "selected": ["head"], "client_blocks": [[0, 1, 2, 3]] * 2}
    (all_sent,) = run_costs(COSTS, [row], TrainingConfig().local, lambda _: 5)
    (some,) = run_costs(COSTS, [{**row, "sent_blocks": [[3], []]}], TrainingConfig().local, lambda _: 5)
    assert some.bytes_up.tolist() == [round_costs(COSTS, MASKS[[2]], [1]).bytes_up[0], 4 * COSTS.buffers]
    assert some.backward.tolist() == all_sent.backward.tolist()
    assert some.bytes_published == all_sent.bytes_published
    published = round_costs(COSTS, np.ones((1, 4), bool), [1], sent=MASKS[[2]]).bytes_published
    assert published == round_costs(COSTS, MASKS[[2]], [1]).bytes_published
    with pytest.raises(InputError, match="sent"):
        round_costs(COSTS, MASKS, [1, 1, 1], sent=MASKS[:1])


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"client_blocks": [[0]]}, "those of 2 clients"),
        ({"sent_blocks": [[0]]}, "those of 2 clients"),
        ({"client_blocks": [[0], [4]]}, "0 to 3"),
        ({"selected": ["h.9"]}, "blocks of this model"),
        ({"probed": [1]}, "probe_batches"),
    ],
)
def test_a_log_of_another_model_is_refused(over: dict[str, Any], message: str) -> None:
    row = {"round": 1, "cohort": [0, 1], "selected": ["head"], "client_blocks": [[3], [3]], **over}
    with pytest.raises(InputError, match=message):
        run_costs(COSTS, [row], TrainingConfig().local, lambda _: 5)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 20))
def test_samples_are_those_of_the_trainers_batches(size: int, width: int, steps: int) -> None:
    training = TrainingConfig(batch_size=width, local_steps=steps).local
    plan = batches(size, training, generator(5, "batches", 3, 2))
    assert samples_processed(size, training) == sum(len(batch) for batch in plan)


def test_without_buffers_only_parameters_are_sent() -> None:
    found = round_costs(replace(COSTS, buffers=0), MASKS, [1, 1, 1])
    assert found.bytes_up.tolist() == [100, 100, 20]


def test_personal_blocks_are_trained_and_never_sent() -> None:
    masks, samples = MASKS[[0, 2]], [10, 3]
    plain = round_costs(COSTS, masks, samples)
    found = round_costs(COSTS, masks, samples, kept=Kept((3,), buffers=2))
    head = 4 * int(COSTS.parameters[3])
    assert (plain.bytes_up - found.bytes_up).tolist() == [head + 8, head + 8]
    assert plain.bytes_down - found.bytes_down == 2 * (head + 8)
    assert plain.bytes_published - found.bytes_published == head + 8
    assert found.backward.tolist() == plain.backward.tolist()
    turns = round_costs(COSTS, masks, samples, kept=Kept((3,), alternate=True))
    alone, rest = (np.array([[False] * 3 + [True]] * 2)), masks.copy()
    rest[:, 3] = False
    each = COSTS.backward(alone) + COSTS.backward(rest)
    assert turns.backward.tolist() == (np.array(samples) * each).tolist()
    assert turns.forward.tolist() == (2 * plain.forward).tolist()
