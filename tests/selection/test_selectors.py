"""Tests the rule of each selector, for one choice on the server and for choices of all clients."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import InputError, ParameterLayout
from fedtlu_fast.randomness import generator as draws_of
from fedtlu_fast.registry import NAMES, find
from fedtlu_fast.selection import Evidence, FedTLU, Ranking, ServerRoom
from fedtlu_fast.selection.baselines import Always
from fedtlu_fast.selection.select import server_room

# Blocks 0: embedding, 1-4: h, 5-7: g, 8: head.
LAYOUT = ParameterLayout.from_shapes(
    {
        "embedding.weight": (9, 9),
        **{f"h.{index}.weight": (2, 2) for index in range(4)},
        **{f"g.{index}.weight": (3, 2) for index in range(3)},
        "head.weight": (9, 9),
    }
)
BLOCKS = len(LAYOUT.blocks)
SELECTORS = ("fedtlu", "random", "last", "first", "full")


def evidence_of(scores=None, seed=0, round_index=1, rows=1):
    metrics = {} if scores is None else {"excess": np.atleast_2d(np.asarray(scores, dtype=np.float64))}
    return Evidence(LAYOUT, metrics, draws_of(seed, "selection", round_index), rows)


def chosen(name, evidence, quotas):
    mask = find("selector", name, "selector")().choose(evidence, ServerRoom(LAYOUT, quotas))
    assert mask.dtype == np.bool_
    assert mask.shape == (evidence.rows, BLOCKS)
    return [row.nonzero()[0].tolist() for row in mask]


def test_the_layout_is_as_the_tests_think():
    assert [group.blocks for group in LAYOUT.groups] == [(1, 2, 3, 4), (5, 6, 7)]
    assert LAYOUT.unique == (0, 8)


def test_the_papers_method_and_baselines_have_their_names():
    assert set(SELECTORS) <= set(NAMES["selector"])


def test_fedtlu_takes_the_best_scores_of_each_group():
    scores = [99, 1, 4, 3, 2, 0.1, 0.3, 0.2, 99]
    assert chosen("fedtlu", evidence_of(scores), (2, 1)) == [[2, 3, 6]]
    assert chosen("fedtlu", evidence_of(scores), (4, 3)) == [[1, 2, 3, 4, 5, 6, 7]]
    assert chosen("fedtlu", evidence_of(scores), (0, 2)) == [[6, 7]]


@examples(30)
@given(st.integers(0, 2), st.integers(0, 4), st.integers(0, 3))
def test_always_takes_the_blocks_from_its_position_on(position, first, second):
    mask = Always(position).choose(evidence_of(), ServerRoom(LAYOUT, (first, second)))[0]
    expected = [1 + (position + place) % 4 for place in range(first)]
    expected += [5 + (position + place) % 3 for place in range(second)]
    assert mask.nonzero()[0].tolist() == sorted(expected)


def test_always_needs_a_block_at_its_position():
    with pytest.raises(InputError, match="position: got 3; expected at most 2: group g"):
        Always(3).choose(evidence_of(), ServerRoom(LAYOUT, (1, 1)))


def test_the_server_refuses_a_position_before_the_first_round():
    with pytest.raises(InputError, match=r"selection\.position: got 3; expected at most 2: .*always:2"):
        server_room(Always(3), LAYOUT, 1)
    server_room(Always(2), LAYOUT, 1)


@pytest.mark.parametrize("made", [torch.tensor, np.array, list, lambda own: torch.tensor([own])])
def test_a_utility_may_be_a_tensor_an_array_or_a_list(made):
    class Mine(Ranking):
        def utility(self, evidence):
            return made([99, 1, 4, 3, 2, 0, 3, 2, 99])

    mask = Mine().choose(evidence_of(), ServerRoom(LAYOUT, (2, 1)))
    assert mask[0].nonzero()[0].tolist() == [2, 3, 6]


@pytest.mark.parametrize(("value", "given"), [([1.0] * 8, r"\(8,\)"), ("high", "'str'"), (None, r"\(\)")])
def test_a_utility_of_another_shape_names_the_selector(value, given):
    class Mine(Ranking):
        def utility(self, evidence):
            return value

    with pytest.raises(
        InputError, match=rf"selector: got {given}; expected Mine.utility to return shape \(1, 9\)"
    ):
        Mine().choose(evidence_of(), ServerRoom(LAYOUT, (2, 1)))


def test_groups_are_not_compared_with_each_other():
    scores = [0, 1e-12, 2e-12, 3e-12, 4e-12, 1e6, 2e6, 3e6, 0]
    assert chosen("fedtlu", evidence_of(scores), (1, 1)) == [[4, 7]]


def test_ties_go_to_the_earlier_block():
    assert chosen("fedtlu", evidence_of([0] * BLOCKS), (2, 2)) == [[1, 2, 5, 6]]
    assert chosen("fedtlu", evidence_of([0, 1, 2, 2, 2, 0.0, -0.0, 0.0, 0]), (2, 1)) == [[2, 3, 5]]


def test_ties_go_to_the_earlier_block_in_long_groups_too():
    layout = ParameterLayout.from_shapes({f"h.{index}.weight": (2,) for index in range(100)})
    scores = np.zeros((1, 100))
    scores[0, 50:] = 1
    mask = FedTLU().choose(Evidence(layout, {"excess": scores}, draws_of(0, "x")), ServerRoom(layout, (60,)))
    assert mask[0].nonzero()[0].tolist() == [*range(10), *range(50, 100)]


def test_degenerate_and_nan_scores_come_last():
    scores = [0, -1, np.nan, 0, 1e-300, -1, np.nan, -1, 0]
    assert chosen("fedtlu", evidence_of(scores), (3, 2)) == [[1, 3, 4, 5, 7]]


def test_last_and_first_are_by_position_in_each_group():
    assert chosen("last", evidence_of(), (2, 1)) == [[3, 4, 7]]
    assert chosen("first", evidence_of(), (2, 1)) == [[1, 2, 5]]


def test_full_takes_every_block_whatever_the_quotas():
    assert chosen("full", evidence_of(), (1, 1)) == [list(range(BLOCKS))]
    assert chosen("full", evidence_of(rows=3), (0, 0)) == [list(range(BLOCKS))] * 3


def test_random_is_a_function_of_seed_and_round():
    def draw(seed, round_index):
        return chosen("random", evidence_of(seed=seed, round_index=round_index), (2, 1))

    assert draw(3, 5) == draw(3, 5)
    rounds = [draw(3, index) for index in range(30)]
    assert len({str(choice) for choice in rounds}) > 5
    assert [draw(4, index) for index in range(30)] != rounds


def test_random_is_uniform():
    rows = chosen("random", evidence_of(rows=4000, seed=1), (2, 1))
    counts = np.bincount([block for row in rows for block in row], minlength=BLOCKS)
    assert counts[[0, 8]].tolist() == [0, 0]
    # Standard deviations are 32 and 30.
    assert np.abs(counts[1:5] - 2000).max() < 160
    assert np.abs(counts[5:8] - 4000 / 3).max() < 150


@pytest.mark.parametrize("name", sorted(set(SELECTORS) - {"full"}))
@examples(40)
@given(
    quotas=st.tuples(st.integers(0, 4), st.integers(0, 3)), rows=st.integers(1, 5), seed=st.integers(0, 99)
)
def test_every_selector_fills_its_quotas_in_every_row(name, quotas, rows, seed):
    scores = draws_of(seed, "scores").integers(0, 3, (rows, BLOCKS))
    for row in chosen(name, evidence_of(scores, seed=seed, rows=rows), quotas):
        for group, quota in zip(LAYOUT.groups, quotas, strict=True):
            assert len(set(row) & set(group.blocks)) == quota
        assert not set(row) & set(LAYOUT.unique)


def test_clients_choose_by_their_own_row():
    """In the client-side paper's setting, evidence has C rows and each client has its own choice."""
    scores = [[0, 4, 3, 2, 1, 1, 2, 3, 0], [0, 1, 2, 3, 4, 3, 2, 1, 0], [0, 1, 9, 9, 1, 0, 1, 0, 0]]
    both = chosen("fedtlu", evidence_of(scores, rows=3), (1, 1))
    assert both == [[1, 7], [4, 5], [2, 6]]
    assert chosen("last", evidence_of(rows=2), (1, 1)) == [[4, 7]] * 2
    drawn = chosen("random", evidence_of(rows=40), (1, 1))
    assert len({str(row) for row in drawn}) > 3, "clients draw apart from each other"


@pytest.mark.parametrize("name", SELECTORS)
def test_selectors_ask_for_what_they_look_at(name):
    selector = find("selector", name, "selector")()
    assert selector.needs == (("excess",) if name == "fedtlu" else ())
    assert selector.ranks_by == "excess"
    evidence = evidence_of(np.ones(BLOCKS) if selector.needs else None)
    before = {key: value.copy() for key, value in evidence.metrics.items()}
    selector.choose(evidence, ServerRoom(LAYOUT, (1, 1)))
    assert all(np.array_equal(before[key], evidence.metrics[key]) for key in before)


def test_fedtlu_ranks_by_the_metric_it_is_given():
    scores = {"excess": np.arange(9.0)[None], "agreement": -np.arange(9.0)[None]}
    evidence = Evidence(LAYOUT, scores, draws_of(0, "x"))
    assert chosen("fedtlu", evidence, (1, 1)) == [[4, 7]]
    selector = FedTLU("agreement")
    assert selector.needs == ("agreement",)
    assert selector.ranks_by == "agreement"
    assert selector.choose(evidence, ServerRoom(LAYOUT, (1, 1)))[0].nonzero()[0].tolist() == [1, 5]


def test_unknown_selector_is_refused_with_the_names_there_are():
    with pytest.raises(InputError, match=r"selector: got 'best'; expected one of fedtlu, random, last"):
        find("selector", "best", "selector")
