"""Tests the rule of each client selector on one room."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.sampling import examples

from fedtlu_fast import ParameterLayout
from fedtlu_fast.config import ClientSelectionConfig
from fedtlu_fast.randomness import generator as draws_of
from fedtlu_fast.registry import NAMES
from fedtlu_fast.selection import ClientRoom, Evidence
from fedtlu_fast.selection.agreement import choose_layers, most_agreement, normalise

# Block 0 is frozen, block 7 always trained; 1 to 6 are open.
BLOCKS = 8
LAYOUT = ParameterLayout.from_shapes({f"{index}.weight": (2, 2) for index in range(BLOCKS)})
OPEN = np.array([False, *[True] * 6, False])
CLIENT_SELECTORS = tuple(name for name in NAMES["client_selector"] if name != "none")
AGREEING = ("strategic", "agreeing")
PROBING = ("gradnorm", "rgn", "snr", *AGREEING)


def room_of(budgets, costs=None, reach=None, open_blocks=OPEN):
    given = np.asarray(budgets, np.float64)
    costs = np.ones(BLOCKS) if costs is None else np.asarray(costs, np.float64)
    return ClientRoom(open_blocks, given, costs, np.zeros(BLOCKS) if reach is None else np.asarray(reach))


def evidence_of(rows=1, round_index=1, clients=None, warmup=0, **metrics):
    clients = range(rows) if clients is None else clients
    return Evidence(
        LAYOUT,
        {name: np.asarray(value, np.float64) for name, value in metrics.items()},
        draws_of(0, "client selection", round_index),
        len(clients),
        round_index,
        [draws_of(0, "client blocks", round_index, client) for client in clients],
        warmup_rounds=warmup,
    )


def selector_of(name, **options):
    return ClientSelectionConfig(selector=name, **options).selector


def chosen(mask):
    assert mask.dtype == np.bool_
    return [row.nonzero()[0].tolist() for row in mask]


def test_every_selector_says_when_and_by_what_it_chooses():
    moments = {"fedlp": "after_training", "fedluar": "after_training"}
    moments |= {"drift": "by_change", "oracle": "by_change"}
    needs = {name: (name,) for name in ("gradnorm", "rgn", "snr", "drift")}
    needs |= {
        "strategic": ("rgn",),
        "agreeing": ("rgn",),
        "fedluar": ("relative_change",),
        "earlier": ("earlier_scores", "last_sent"),
        "oracle": ("benefit",),
    }
    for name in CLIENT_SELECTORS:
        selector = selector_of(name, **({"metric": "rgn"} if name in AGREEING else {}))
        assert selector.moment == moments.get(name, "before_training")
        assert selector.needs == needs.get(name, ())
        assert selector.probes == (selector.needs if name in PROBING else ())
        assert selector.budgeted == (name not in ("full", "fedpart", "fedlp"))
        assert selector.same_for_all == (name in ("fedpart", "fedluar", "earlier"))
        assert selector.needs_samples == (name == "oracle")
        assert selector.recycles == (name == "fedluar")
        assert (selector.needs_others is not None) == (name in AGREEING)
    assert not ClientSelectionConfig().chooses


def test_what_probing_clients_measure():
    probed = [selector_of(name).probes for name in PROBING]
    assert probed == [("gradnorm",), ("rgn",), ("snr",), ("gradnorm",), ("gradnorm",)]
    assert selector_of("strategic", metric="snr").probes == ("snr",)


# --- by place ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("top", [[], [6], [4, 5, 6], [1, 2, 3, 4, 5, 6]]),
        ("bottom", [[], [1], [1, 2, 3], [1, 2, 3, 4, 5, 6]]),
        ("both", [[], [6], [1, 5, 6], [1, 2, 3, 4, 5, 6]]),
    ],
)
def test_from_the_output_from_the_input_and_from_both_in_turn(name, expected):
    found = selector_of(name).choose(evidence_of(4), room_of([0, 1, 3, 99]))
    assert chosen(found) == expected


def test_both_ends_in_turn_whatever_is_closed_between_them():
    gaps = np.array([False, True, True, False, True, False, True, False])
    selector = selector_of("both")
    room = room_of([1, 2, 3, 4], open_blocks=gaps)
    assert chosen(selector.choose(evidence_of(4), room)) == [[6], [1, 6], [1, 4, 6], [1, 2, 4, 6]]


def test_full_takes_all_open_blocks_whatever_the_budget():
    found = selector_of("full").choose(evidence_of(2), room_of([1, 2]))
    assert chosen(found) == [[1, 2, 3, 4, 5, 6]] * 2


# --- by a utility, within a budget ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["gradnorm", "rgn", "snr", "drift", "oracle"])
def test_each_client_takes_its_own_best(name):
    gains = [[9, 1, 2, 3, 4, 5, 6, 9], [9, 6, 5, 4, 3, 2, 1, 9], [9, 1, 1, 1, 0, 1, 1, 9]]
    selector = selector_of(name)
    found = selector.choose(evidence_of(3, **{selector.needs[0]: gains}), room_of([2, 1, 3]))
    assert chosen(found) == [[5, 6], [1], [1, 2, 3]]


@pytest.mark.parametrize("name", ["gradnorm", "rgn", "snr", "drift", "oracle"])
def test_what_is_no_number_is_never_taken(name):
    gains = np.array([[9, np.nan, 2, np.nan, 0, 5, np.nan, 9], [np.nan] * 8])
    selector = selector_of(name)
    found = selector.choose(evidence_of(2, **{selector.needs[0]: gains}), room_of([5, 5]))
    assert chosen(found) == [[2, 4, 5], []]


def greedy(utility, room, budget):
    """Chooses greedily, down the ranks, one block after another."""
    taken = []
    for block in sorted(range(BLOCKS), key=lambda at: (-np.nan_to_num(utility[at], nan=-np.inf), at)):
        tried = [*taken, block]
        price = sum(room.costs[at] for at in tried) + max(room.reach[at] for at in tried)
        if room.open[block] and not np.isnan(utility[block]) and price <= budget * (1 + 1e-12):
            taken = tried
    return sorted(taken)


@examples(200)
@given(
    utility=hnp.arrays(
        np.float64,
        (3, BLOCKS),
        elements=st.sampled_from([0.0, -0.0, 1.0, 2.0, -1.0, np.nan, np.inf, 1e-300, 0.5]),
    ),
    budgets=st.lists(st.sampled_from([0, 0.1, 0.3, 0.7, 1, 2, 3.5, 50]), min_size=3, max_size=3),
    costs=hnp.arrays(np.float64, BLOCKS, elements=st.sampled_from([0.1, 0.2, 1.0, 1.5])),
    reach=hnp.arrays(np.float64, BLOCKS, elements=st.sampled_from([0.0, 0.1, 0.4, 1.0])),
    open_blocks=hnp.arrays(np.bool_, BLOCKS),
)
def test_a_budget_is_filled_down_the_ranks_and_never_exceeded(utility, budgets, costs, reach, open_blocks):
    room = room_of(budgets, costs, np.sort(reach)[::-1], open_blocks)
    mask = room.best(utility)
    for row, own, budget in zip(mask, utility, budgets, strict=True):
        assert row.nonzero()[0].tolist() == greedy(own, room, budget)
        assert not (row & (np.isnan(own) | ~open_blocks)).any()
        if row.any():
            assert costs[row].sum() + room.reach[row].max() <= budget * (1 + 1e-9)
        for block in np.flatnonzero(open_blocks & ~np.isnan(own) & ~row):
            more = row.copy()
            more[block] = True
            assert costs[more].sum() + room.reach[more].max() > budget, "another block fits"


def test_a_sum_that_is_the_budget_but_for_rounding_fits():
    shares = np.full(BLOCKS, 0.1)
    assert 0.1 + 0.1 + 0.1 > 0.3
    assert room_of([0.3], shares).best(np.ones((1, BLOCKS))).sum() == 3
    found = selector_of("strategic", lam=0.0).choose(
        evidence_of(gradnorm=np.ones((1, BLOCKS))), room_of([0.3], shares)
    )
    assert found.sum() == 3


def test_what_does_not_fit_is_passed_over_for_what_does():
    utility = np.array([[0, 9, 8, 7, 6, 5, 4, 0.0]])
    costs = [1, 5, 3, 1, 1, 1, 1, 1]
    assert chosen(room_of([4], costs).best(utility)) == [[2, 3]]
    # Down to block 1 costs 2, of which the others then have none to pay.
    reach = [0, 2, 0, 0, 0, 0, 0, 0]
    assert chosen(room_of([4], np.ones(BLOCKS), reach).best(utility)) == [[1, 2]]
    assert chosen(room_of([2], np.ones(BLOCKS), reach).best(utility)) == [[2, 3]]


# --- by chance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["random", "fedlp"])
def test_a_clients_draw_does_not_depend_on_who_else_is_there(name):
    selector, clients = selector_of(name), list(range(100, 140))
    budgets = dict(zip(clients, np.arange(40) % 5, strict=True))

    def draw(own, round_index=3):
        room = room_of([budgets[client] for client in own])
        found = selector.choose(evidence_of(clients=own, round_index=round_index), room)
        return dict(zip(own, chosen(found), strict=True))

    together = draw(clients)
    assert draw(clients[::-3]) == {client: together[client] for client in clients[::-3]}
    assert draw([117]) == {117: together[117]}
    assert draw(clients, 4) != together
    assert len({str(own) for own in together.values()}) > 10


def test_random_is_uniform_among_the_open_blocks():
    found = selector_of("random").choose(evidence_of(3000), room_of(np.full(3000, 2)))
    assert (found.sum(axis=1) == 2).all()
    counts = found.sum(axis=0)
    assert counts[[0, 7]].tolist() == [0, 0]
    assert np.abs(counts[1:7] - 1000).max() < 6 * np.sqrt(3000 * (1 / 3) * (2 / 3))


@pytest.mark.parametrize("probability", [0.2, 0.5, 1.0])
def test_fedlp_sends_each_block_by_its_chance_whatever_the_others(probability):
    selector = selector_of("fedlp", probability=probability)
    found = selector.choose(evidence_of(3000), room_of(np.full(3000, 1)))[:, 1:7]
    spread = 6 * np.sqrt(3000 * probability * (1 - probability))
    assert np.abs(found.sum(axis=0) - 3000 * probability).max() <= spread
    pairs = (found[:, :-1] & found[:, 1:]).mean(axis=0)
    np.testing.assert_allclose(pairs, probability**2, atol=0.06)
    assert not selector.choose(evidence_of(50), room_of(np.ones(50)))[:, [0, 7]].any()


# --- P1 ------------------------------------------------------------------------------------------


def gains_of(rows, seed=0):
    return draws_of(seed, "gains").gamma(1.0, size=(rows, BLOCKS))


@pytest.mark.parametrize("lam", [0.0, 0.05, 0.5, 1e6])
@pytest.mark.parametrize("metric", ["gradnorm", "rgn", "snr"])
def test_strategic_solves_p1_on_the_open_blocks_gains_by_their_mean(metric, lam):
    gains, room = gains_of(5), room_of([1, 2, 3, 1, 4])
    selector = selector_of("strategic", metric=metric, lam=lam)
    found = selector.choose(evidence_of(5, **{metric: gains}), room)
    expected = choose_layers(normalise(gains[:, OPEN]), room.budgets, lam)
    np.testing.assert_array_equal(found[:, OPEN], expected.mask)
    assert not found[:, ~OPEN].any()
    if lam == 0:
        own = selector_of("gradnorm").choose(evidence_of(5, gradnorm=gains), room)
        np.testing.assert_array_equal(found, own)
    if lam == 1e6:
        assert (found == found[0]).all()


@examples(25)
@given(exponent=st.integers(-30, 30), lam=st.sampled_from([0.02, 0.3]), seed=st.integers(0, 99))
def test_the_units_of_the_gains_do_not_matter_to_strategic(exponent, lam, seed):
    gains, room = gains_of(4, seed), room_of([2, 1, 3, 2])
    selector = selector_of("strategic", lam=lam)
    first = selector.choose(evidence_of(4, gradnorm=gains), room)
    np.testing.assert_array_equal(
        selector.choose(evidence_of(4, gradnorm=gains * 2.0**exponent), room), first
    )


def test_strategic_reckons_with_costs_and_with_the_way_down():
    gains = gains_of(6)
    costs, reach = np.linspace(0.1, 0.4, BLOCKS), np.linspace(0.7, 0.0, BLOCKS)
    room = room_of(np.linspace(0.4, 1.5, 6), costs, reach)
    found = selector_of("strategic", lam=0.1).choose(evidence_of(6, gradnorm=gains), room)
    expected = choose_layers(
        normalise(gains[:, OPEN]), room.budgets, 0.1, costs=costs[OPEN], reach=reach[OPEN]
    )
    np.testing.assert_array_equal(found[:, OPEN], expected.mask)
    for row, budget in zip(found, room.budgets, strict=True):
        assert not row.any() or costs[row].sum() + reach[row].max() <= budget + 1e-9


@pytest.mark.parametrize("kept", [0.0, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("metric", ["gradnorm", "snr"])
def test_agreeing_keeps_its_share_of_what_choosing_open_blocks_is_worth(metric, kept):
    gains = gains_of(6)
    costs, reach = np.linspace(0.1, 0.4, BLOCKS), np.linspace(0.7, 0.0, BLOCKS)
    room = room_of(np.linspace(0.5, 1.5, 6), costs, reach)
    found = selector_of("agreeing", metric=metric, kept=kept).choose(evidence_of(6, **{metric: gains}), room)
    alone = selector_of("strategic", metric=metric, lam=0.0).choose(evidence_of(6, **{metric: gains}), room)
    own, chance = (gains * alone).sum(1), gains[:, OPEN].mean(1) * alone.sum(1)
    chance = np.minimum(own, chance).sum()
    assert gains[found].sum() >= chance + kept * (own.sum() - chance) - 1e-9
    for row, budget in zip(found, room.budgets, strict=True):
        assert not row.any() or costs[row].sum() + reach[row].max() <= budget + 1e-9
    assert (found == alone).all() == (kept == 1)
    assert not found[:, ~OPEN].any()


@pytest.mark.parametrize("given", [{"lam": 1e6}, {"kept": 0.0}], ids=str)
def test_clients_without_numbers_or_without_means_choose_nothing_and_hold_nobody_back(given):
    gains, room = gains_of(5), room_of([2, 2, 0.5, 2, 2])
    gains[1, 4] = np.nan
    gains[3] = np.inf
    # What is wrong outside the open blocks is no matter.
    gains[0, 0] = np.nan
    name = "strategic" if "lam" in given else "agreeing"
    found = selector_of(name, **given).choose(evidence_of(5, gradnorm=gains), room)
    assert [len(row) for row in chosen(found)] == [2, 0, 0, 0, 2]
    own = normalise(gains[[0, 4]][:, OPEN])
    expected = choose_layers(own, [2, 2], 1e6) if "lam" in given else most_agreement(own, [2, 2], 0.0)
    np.testing.assert_array_equal(found[[0, 4]][:, OPEN], expected.mask)
    nobody = selector_of(name).choose(evidence_of(2, gradnorm=gains[[1, 3]]), room_of([2, 2]))
    assert not nobody.any()


# --- of other papers -----------------------------------------------------------------------------


def test_fedpart_goes_from_input_to_output_after_the_warm_up_and_rests_in_full_rounds():
    selector = selector_of("fedpart", rounds_per_block=2, full_rounds=1)
    cycle = [[block] for block in range(1, 7) for _ in range(2)] + [[1, 2, 3, 4, 5, 6]]
    for round_index in range(4, 4 + 3 * len(cycle)):
        found = selector.choose(evidence_of(2, round_index, warmup=3), room_of([1, 1]))
        assert chosen(found) == [cycle[(round_index - 4) % len(cycle)]] * 2


def test_fedluar_sends_everything_until_something_has_moved():
    change = np.zeros((1, BLOCKS))
    selector = selector_of("fedluar", budget=2)
    assert (
        chosen(selector.choose(evidence_of(2, relative_change=change), room_of([2, 2])))
        == [[1, 2, 3, 4, 5, 6]] * 2
    )
    # Blocks that have not moved have no change to use again.
    change[0, [2, 5]] = 1e-3
    found = selector.choose(evidence_of(2, relative_change=change), room_of([2, 2]))
    assert chosen(found) == [[1, 3, 4, 6]] * 2


def test_fedluar_leaves_out_by_inverse_chances_and_the_same_for_all():
    change = np.array([[1.0, 0.5, 1.0, 2.0, 4.0, 1.0, 8.0, 1.0]])
    selector, counts = selector_of("fedluar", budget=5), np.zeros(BLOCKS)
    for round_index in range(1, 1501):
        evidence = evidence_of(3, round_index, relative_change=change)
        found = selector.choose(evidence, room_of([5, 5, 5]))
        assert (found == found[0]).all()
        assert found[0].sum() == 5
        counts += ~found[0] & OPEN
    chances = np.where(OPEN, 1 / change[0], 0) / (1 / change[0, OPEN]).sum()
    assert np.abs(counts - 1500 * chances).max() < 5 * np.sqrt(1500 * 0.25)
    assert counts[1] > counts[2] > counts[3] > counts[6] > 0


@pytest.mark.parametrize("budget", [1, 3, 6, 9])
def test_fedluar_has_as_many_sent_as_the_budget_says(budget):
    change = np.linspace(1, 2, BLOCKS)[None]
    found = selector_of("fedluar", budget=budget).choose(
        evidence_of(relative_change=change), room_of([budget])
    )
    assert found.sum() == min(budget, 6)
    assert not found[:, ~OPEN].any()


@pytest.mark.parametrize("name", sorted(CLIENT_SELECTORS))
def test_with_nothing_to_choose_nothing_is_chosen(name):
    """All blocks may be always trained or frozen, as in a model with one layer."""
    closed = np.zeros(BLOCKS, np.bool_)
    metrics = {metric: np.ones((2, BLOCKS)) for metric in selector_of(name).metrics}
    room = room_of([1, 1], open_blocks=closed)
    found = selector_of(name).choose(evidence_of(2, **metrics), room)
    assert found.shape == (2, BLOCKS)
    assert not found.any()
