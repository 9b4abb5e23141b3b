"""Who trained which block when, from logs by hand."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.client_arms import OPEN, arm, reference

from fedtlu_fast.report.aggregate.client_choices import agreement, arms_choices, client_choices
from fedtlu_fast.report.arms import baseline_of, budget_of, selector_of
from fedtlu_fast.report.figures.client_maps import MOST_COLUMNS, grid, maps_figure
from fedtlu_fast.report.figures.style import styles
from fedtlu_fast.report.pages.parts import png

TOP = [[3, 4], [3, 4]]
APART = [[1, 4], [3, 4]]


@pytest.mark.parametrize(
    ("name", "selector", "budget", "baseline"),
    [
        ("full", "full", None, "random"),
        ("strategic@2", "strategic", "2", "random@2"),
        ("gradnorm@1..4", "gradnorm", "1..4", "random@1..4"),
        ("strategic-snr@2+lam=0.1", "strategic-snr+lam=0.1", "2", "random@2"),
    ],
)
def test_names_are_taken_apart(name: str, selector: str, budget: str | None, baseline: str) -> None:
    assert (selector_of(name), budget_of(name), baseline_of(name, ())) == (selector, budget, baseline)


def test_a_selector_looks_the_same_under_every_budget_and_unlike_the_others() -> None:
    kinds = [f"s{index}" for index in range(20)]
    looks = styles([*(f"{kind}@{budget}" for kind in kinds for budget in (1, 2)), "full", "zero_shot"])
    assert all(looks[f"{kind}@1"] == looks[f"{kind}@2"] for kind in kinds)
    assert len(set(looks.values())) == 22
    assert (
        looks["full"].colour == looks["zero_shot"].colour not in {looks[f"{kind}@1"].colour for kind in kinds}
    )
    assert styles(["full", "fedlp"])["full"].colour != styles(["full", "fedlp"])["fedlp"].colour


def test_agreement_by_hand() -> None:
    rows = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]], np.bool_)
    assert agreement(rows) == pytest.approx((1 / 2 + 0 + 0) / 3)
    assert agreement(np.zeros((2, 3), np.bool_)) == 1
    assert np.isnan(agreement(rows[:1]))


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=2, max_size=6))
def test_agreement_is_the_mean_over_pairs_of_sets(rows: list[list[bool]]) -> None:
    sets = [{place for place, chosen in enumerate(row) if chosen} for row in rows]
    pairs = [(a, b) for place, a in enumerate(sets) for b in sets[:place]]
    expected = np.mean([len(a & b) / len(a | b) if a | b else 1 for a, b in pairs])
    assert agreement(np.array(rows)) == pytest.approx(expected)


def test_choices_are_of_open_blocks_and_of_rounds_with_orders() -> None:
    found = client_choices(arm("own@1", 0, [TOP, APART, []]))
    assert found is not None
    assert (found.rounds, found.blocks, found.sent_less) == ((2, 3, 4), OPEN, False)
    assert found.shares[:2].tolist() == [[0, 0, 1], [0.5, 0, 0.5]]
    assert found.agreement[:2].tolist() == [1, 0]
    assert np.isnan(found.shares[2]).all()
    assert np.isnan(found.agreement[2])


def test_what_is_sent_counts_and_failed_clients_are_no_disagreement() -> None:
    result = arm("fedlp", 0, [[[1, 2, 3, 4]] * 3])
    result.selection[1]["sent_blocks"] = [[1, 4], [1, 4], []]
    found = client_choices(result)
    assert found is not None
    assert found.sent_less
    assert found.shares.tolist() == [pytest.approx([2 / 3, 0, 0])]
    assert found.agreement.tolist() == [1]


def test_logs_that_do_not_name_open_blocks_show_all() -> None:
    result = arm("own@1", 0, [TOP])
    del result.summary["open_blocks"]
    found = client_choices(result)
    assert found is not None
    assert found.shares.tolist() == [[0, 0, 0, 1, 1]]
    assert client_choices(reference("zero_shot", 0, 0.1)) is None


def test_a_map_is_the_mean_over_seeds_with_the_input_at_the_bottom() -> None:
    arms = [arm("own@1", 0, [TOP, TOP]), arm("own@1", 1, [APART, TOP]), reference("zero_shot", 0, 0.1)]
    figure = maps_figure(arms_choices(arms))
    axes, _ = figure.axes
    assert axes.get_title(loc="left") == "own@1"
    shares = axes.images[0].get_array()
    assert shares is not None
    assert shares[:, 0].tolist() == [0.25, 0, 0.75]
    assert axes.images[0].origin == "lower"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["h.0", "h.1", "h.2"]
    assert axes.get_ylim() == (-0.5, 2.5)


@pytest.mark.parametrize("count", [1, 2, 7, 35])
def test_maps_of_any_number_of_arms_can_be_drawn(count: int) -> None:
    one = arms_choices([arm("a@1", 0, [TOP])])["a@1"]
    choices = {f"s{place}@{place}": one for place in range(count)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert png(lambda: maps_figure(choices)).startswith(b"\x89PNG")


def test_arms_of_other_models_and_lengths_share_a_picture() -> None:
    longer = arm("b@1", 0, [TOP, APART, TOP])
    some = replace(longer, summary={**longer.summary, "open_blocks": ["h.1"]})
    left, right, _ = maps_figure(arms_choices([arm("a@1", 0, [TOP]), some])).axes
    first, second = left.images[0].get_array(), right.images[0].get_array()
    assert first is not None
    assert second is not None
    assert first.shape == second.shape == (3, 3)
    assert first.mask[:, 1:].all(), "rounds that the arm did not have are blank"
    assert second.mask[[0, 2]].all()


def test_the_grid_is_selectors_by_budgets_where_that_fills_it() -> None:
    full = grid(["a@1", "a@2", "a@1..4", "b@1..4", "b@1", "b@2", "full", "fedlp"])
    assert full == {
        "a@1": (0, 0),
        "a@2": (0, 1),
        "a@1..4": (0, 2),
        "b@1..4": (1, 2),
        "b@1": (1, 0),
        "b@2": (1, 1),
        "full": (2, 0),
        "fedlp": (2, 1),
    }
    assert grid(["a@1", "b@2", "c@3"]) == {"a@1": (0, 0), "b@2": (0, 1), "c@3": (0, 2)}
    places = grid([f"s{index}@2" for index in range(35)])
    assert len(set(places.values())) == 35
    assert max(column for _, column in places.values()) < MOST_COLUMNS
