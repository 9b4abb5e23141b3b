"""Scores without any number are refused by all that rank by one, if something could be applied."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import InputError, ParameterLayout, layer_stats, score_layers
from fedtlu_fast.randomness import generator
from fedtlu_fast.scoring.block_metrics import Change, asks, measure
from fedtlu_fast.selection import Coverage, Evidence, FedTLU, FunctionSelector, ServerRoom, Smoothed

LAYOUT = ParameterLayout.from_shapes(
    {"embedding.weight": (9, 9), **{f"h.{index}.weight": (2, 2) for index in range(3)}, "head.weight": (9, 9)}
)
ROOM = ServerRoom(LAYOUT, (1,))
OPEN = [1, 2, 3]
NAN, INF = float("nan"), float("inf")


def change_of(vector):
    stats = layer_stats(vector, LAYOUT)
    return Change(LAYOUT, stats, score_layers(stats), None, LAYOUT)


def choose(kind, values, vector=None):
    """The open blocks that a selector chooses by these values of the five blocks."""
    change = change_of(torch.ones(LAYOUT.size) if vector is None else vector)
    metrics = {"excess": np.array([values], np.float64)}
    selector = FunctionSelector(lambda _: values) if kind is FunctionSelector else kind()
    evidence = Evidence(LAYOUT, metrics, generator(0, "x", 1), change=change)
    return np.flatnonzero(selector.choose(evidence, ROOM)[0]).tolist()


KINDS = pytest.mark.parametrize("kind", [FedTLU, Smoothed, Coverage, FunctionSelector])


@KINDS
@pytest.mark.parametrize(
    ("open_values", "told"),
    [([NAN] * 3, "NaN"), ([INF] * 3, "inf"), ([-INF] * 3, "-inf"), ([NAN, -INF, NAN], "-inf")],
)
def test_scores_without_any_number_are_refused(kind, open_values, told):
    with pytest.raises(InputError, match=f"a number for some block, but all are {told}"):
        choose(kind, [1.0, *open_values, 2.0])  # the numbers of other blocks are no help


@KINDS
@pytest.mark.parametrize("bad", [0.0, NAN, INF])
def test_nothing_is_refused_where_nothing_could_be_applied(kind, bad):
    vector = torch.full((LAYOUT.size,), bad)
    assert len(choose(kind, [NAN] * 5, vector)) == 1
    vector[LAYOUT.runs([2])[0]] = 1.0
    with pytest.raises(InputError):
        choose(kind, [NAN] * 5, vector)


@KINDS
def test_what_metrics_give_blocks_that_cannot_be_ranked_is_a_number(kind):
    assert len(choose(kind, [-1.0] * 5)) == 1


@pytest.mark.parametrize("kind", [FedTLU, FunctionSelector])
@examples(50)
@given(st.lists(st.sampled_from([NAN, INF, -INF, -1.0, 0.0, 2.0]), min_size=3, max_size=3))
def test_any_number_or_order_is_enough(kind, values):
    ranked = [-INF if np.isnan(one) else one for one in values]
    if len(set(ranked)) == 1 and np.isinf(ranked[0]):
        with pytest.raises(InputError):
            choose(kind, [0.0, *values, 0.0])
    else:
        assert choose(kind, [0.0, *values, 0.0]) == [OPEN[ranked.index(max(ranked))]]


@pytest.mark.parametrize("bad", [0.0, NAN, INF])
@pytest.mark.parametrize("metric", ["excess", "l2_per_parameter"])
def test_our_metrics_are_numbers_also_of_changes_that_are_not(metric, bad):
    values = measure(metric, change_of(torch.full((LAYOUT.size,), bad))).blocks
    assert bool(torch.isfinite(values).all())


def spread(change):
    return change.client_stats.l2.std(dim=0)


def weighted(change):
    return change.client_weights[0] * change.client_norms


def wrong(change):
    return change.pooling.client_stats.of(None.of)


@pytest.mark.parametrize(
    ("function", "facts"), [(spread, '"client_stats"'), (weighted, '"client_norms", "client_stats"')]
)
def test_a_fact_that_was_not_asked_for_is_named(function, facts):
    change = change_of(torch.ones(LAYOUT.size))
    evidence = Evidence(LAYOUT, {}, generator(0, "x", 1), change=change)
    with pytest.raises(InputError, match=f"NoneType.*Put @asks\\({facts}\\)"):
        FunctionSelector(function).choose(evidence, ROOM)
    with pytest.raises(InputError, match=f"NoneType.*Put @asks\\({facts}\\)"):
        measure(f"{__name__}:{function.__name__}", change)


def test_other_errors_have_no_such_hint():
    change = change_of(torch.ones(LAYOUT.size))
    for function in (wrong, asks("client_stats")(lambda change: change.client_stats.l2)):
        evidence = Evidence(LAYOUT, {}, generator(0, "x", 1), change=change)
        with pytest.raises(InputError) as error:
            FunctionSelector(function).choose(evidence, ROOM)
        assert "@asks" not in str(error.value)


@pytest.mark.parametrize("kind", [FedTLU, Smoothed, Coverage])
def test_a_metric_that_ranks_no_block_is_warned_of(kind, caplog):
    choose(kind, [1.0, -1.0, -1.0, -1.0, 2.0])
    assert "round 1: excess ranks no block, and the first ones are taken" in caplog.text
    caplog.clear()
    choose(kind, [1.0, -1.0, -0.5, -1.0, 2.0])
    choose(kind, [-1.0] * 5, torch.zeros(LAYOUT.size))
    assert not caplog.text
