"""Tests `choose_layers`: its limits, its invariances, and how near to the optimum its choices are."""

import warnings
from itertools import product
from math import fsum, inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.selection import choose_layers, normalise
from fedtlu_fast.selection.agreement.exact import solve_exactly
from fedtlu_fast.selection.agreement.game import descend, settle
from fedtlu_fast.selection.agreement.limits import Counts
from fedtlu_fast.selection.agreement.problem import Problem
from fedtlu_fast.selection.agreement.search import Found

GAINS = st.integers(0, 4).map(float) | st.floats(0, 5, allow_subnormal=False)


def objective_of(mask, gains, lam):
    """Computes the objective as the paper writes it, pair by pair."""
    clients, layers = mask.shape
    gained = fsum(gains[i, layer] for i in range(clients) for layer in range(layers) if mask[i, layer])
    pairs = sum(
        mask[i, layer] != mask[j, layer]
        for layer in range(layers)
        for i in range(clients)
        for j in range(i + 1, clients)
    )
    return gained - lam * int(pairs) if pairs else gained


def spent(mask, costs, reach):
    return (mask * costs).sum(1) + (mask * reach).max(1)


def federation(seed, clients, layers, lam):
    """Draws gains with shared and own parts, in clusters, with ties or negative; budgets equal or mixed.

    lam is in units of the mean gain per client.
    """
    generator = np.random.default_rng([seed, clients, layers])
    own = generator.choice([0.2, 0.5, 1.0])
    gains = (1 - own) * generator.gamma(2, 1, layers) + own * generator.gamma(2, 1, (clients, layers))
    if seed % 3 == 0:
        kinds = generator.gamma(1, 1, (3, layers))
        gains = 0.3 * gains + 0.7 * kinds[generator.integers(0, 3, clients)]
    if seed % 5 == 0:
        gains = gains - gains.mean() * generator.random()
    if seed % 7 == 0:
        gains = np.round(gains)
    most = int(generator.integers(1, layers + 1))
    budgets = generator.integers(1, most + 1, clients) if seed % 2 else np.full(clients, most)
    return gains, budgets, lam * float(np.abs(gains).mean()) / clients


def solved_by_highs(gains, budgets, lam):
    problem = Problem(gains, np.ones(len(gains)), lam, Counts(np.minimum(budgets, gains.shape[1])))
    nothing = Found(np.zeros(gains.shape, dtype=bool), 0.0, inf)
    return solve_exactly(problem, nothing)


@st.composite
def small(draw, clients=5, layers=4):
    """Draws gains (with ties), budgets and lam of a small problem."""
    shape = draw(st.integers(1, clients)), draw(st.integers(1, layers))
    size = shape[0] * shape[1]
    gains = np.array(draw(st.lists(GAINS, min_size=size, max_size=size))).reshape(shape)
    budgets = draw(st.lists(st.integers(0, shape[1] + 1), min_size=shape[0], max_size=shape[0]))
    return gains, np.array(budgets), draw(st.sampled_from([0.0, 0.05, 0.3, 1.0, 4.0, 1e6, inf]))


# --- the optimum ---------------------------------------------------------------------------------


@examples(60)
@given(small(clients=3, layers=3))
def test_exact_is_the_best_of_all_choices(problem):
    gains, budgets, lam = problem
    cells = product([False, True], repeat=gains.size)
    masks = [np.array(cell).reshape(gains.shape) for cell in cells]
    best = max(objective_of(mask, gains, lam) for mask in masks if (mask.sum(1) <= budgets).all())
    choice = choose_layers(gains, budgets, lam, exact=True)
    assert choice.objective == pytest.approx(best, abs=1e-9)
    assert choice.gap <= 1e-6
    assert best <= choose_layers(gains, budgets, lam).bound + 1e-9
    if lam < inf:
        # Whether or not the bound had proven it already.
        assert solved_by_highs(gains, budgets, lam).objective == pytest.approx(best, rel=1e-6, abs=1e-6)


def test_choices_are_near_the_optimum_that_highs_finds():
    quality = []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        clients, layers = int(generator.integers(4, 17)), int(generator.integers(3, 13))
        lam = [0.1, 0.3, 1.0, 3.0, 10.0][seed % 5]
        gains, budgets, lam = federation(seed, clients, layers, lam)
        choice = choose_layers(gains, budgets, lam)
        best = solved_by_highs(gains, budgets, lam).objective
        assert choice.objective == pytest.approx(objective_of(choice.mask, gains, lam), rel=1e-12, abs=1e-12)
        assert (choice.mask.sum(1) <= budgets).all()
        assert choice.bound >= best * (1 - 1e-6)
        quality.append(choice.objective / best if best > 1e-9 else 1.0)
    assert np.median(quality) >= 0.99999
    assert min(quality) >= 0.99, f"seed {int(np.argmin(quality))}"
    assert max(quality) <= 1 + 1e-6, "better than the optimum"


def test_with_costs_choices_are_near_the_optimum_too():
    quality = []
    for seed in range(18):
        gains, _, lam = federation(seed, 8, 8, [0.1, 0.3, 1.0, 3.0][seed % 4])
        generator = np.random.default_rng(seed)
        costs = [np.ones(8), generator.integers(1, 4, 8), generator.random(8)][seed % 3].astype(float)
        reach = np.arange(8, 0, -1) * costs.mean() * generator.choice([0, 0.5, 1])
        budgets = (costs.sum() + reach[0]) * generator.uniform(0.05, 0.8, 8)
        choice = choose_layers(gains, budgets, lam, costs=costs, reach=reach)
        best = choose_layers(gains, budgets, lam, costs=costs, reach=reach, exact=True)
        assert best.gap <= 1e-6
        for found in (choice, best):
            assert (spent(found.mask, costs, reach) <= budgets * (1 + 2e-12)).all()
            assert found.objective == pytest.approx(objective_of(found.mask, gains, lam), rel=1e-12)
        assert choice.bound >= best.objective * (1 - 1e-6)
        quality.append(choice.objective / best.objective if best.objective > 1e-9 else 1.0)
    assert np.median(quality) >= 0.9999
    assert min(quality) >= 0.97, f"seed {int(np.argmin(quality))}"


def test_proving_lowers_the_bound_and_never_the_objective():
    improved = 0
    for seed in range(20):
        gains, budgets, lam = federation(seed, 30, 12, 1.5)
        choice, proof = (choose_layers(gains, budgets, lam, prove=prove) for prove in (False, True))
        assert proof.objective >= choice.objective * (1 - 1e-12)
        assert proof.bound <= choice.bound * (1 + 1e-12)
        assert 0 <= proof.gap <= choice.gap + 1e-12
        improved += proof.gap < choice.gap
    assert improved, "no problem here needs a proof"


# --- limits --------------------------------------------------------------------------------------


@examples(60)
@given(small())
def test_without_lambda_everybody_takes_its_own_best_layers(problem):
    gains, budgets, _ = problem
    choice = choose_layers(gains, budgets, 0.0)
    for row, own, budget in zip(choice.mask, gains, budgets, strict=True):
        ranked = np.argsort(-own, kind="stable")[:budget]
        assert set(np.nonzero(row)[0]) == {layer for layer in ranked if own[layer] > 0}
    assert choice.gap == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("lam", [1e3, 1e9, 1e300, inf])
@pytest.mark.parametrize(("budgets", "shared"), [([2, 2, 2], 2), ([3, 1, 2], 1), ([0, 3, 3], 0)])
def test_with_a_large_lambda_all_take_the_set_that_fits_the_smallest_budget(lam, budgets, shared):
    gains = np.array([[5.0, 1.0, 3.0, 2.0], [1.0, 2.0, 4.0, 1.5], [2.0, 9.0, 3.0, 1.0]])
    choice = choose_layers(gains, budgets, lam)
    expected = np.isin(np.arange(4), np.argsort(-gains.sum(0))[:shared])
    assert (choice.mask == expected).all(), "a larger budget is not filled with what others do not train"
    assert choice.objective == pytest.approx(gains.sum(0)[expected].sum())
    assert choice.gap == pytest.approx(0, abs=1e-12)


def test_agreement_grows_with_lambda():
    gains, budgets, unit = federation(1, 12, 9, 1.0)
    disagreements, gained = [], []
    for factor in (0, 0.1, 0.3, 1, 3, 10, 100):
        mask = choose_layers(gains, budgets, factor * unit, exact=True).mask
        counts = mask.sum(0)
        disagreements.append(int((counts * (12 - counts)).sum()))
        gained.append(float(gains[mask].sum()))
    assert disagreements == sorted(disagreements, reverse=True)
    assert gained == sorted(gained, reverse=True)
    assert disagreements[0] > disagreements[3] > disagreements[-1] == 0


@pytest.mark.parametrize("lam", [0.0, 0.7, inf])
def test_one_client_has_nobody_to_agree_with(lam):
    choice = choose_layers([[1.0, 3.0, 0.0, 2.0]], [2], lam)
    assert choice.mask.tolist() == [[False, True, False, True]]
    assert choice.objective == choice.bound == 5.0


@pytest.mark.parametrize("lam", [0.0, 0.1, 0.4, 5.0, inf])
def test_a_client_without_a_budget_trains_nothing(lam):
    gains = np.ones((4, 3)) * [3.0, 2.0, 1.0]
    choice = choose_layers(gains, [0, 2, 2, 2], lam)
    assert not choice.mask[0].any()
    # Layer 0 is worth 9 to three clients, and costs three disagreements with the one that cannot.
    assert choice.mask[1:, 0].all() == (3 * lam < 9)
    assert not choose_layers(gains, [0] * 4, lam).mask.any()


def test_one_layer():
    gains = np.array([[1.0], [1.0], [0.1]])
    assert choose_layers(gains, [1, 1, 1], 0.0).mask.all()
    assert choose_layers(gains, [1, 1, 0], 0.9).mask.tolist() == [[True], [True], [False]]
    assert not choose_layers(gains, [1, 1, 0], 1.1).mask.any()
    assert not choose_layers(-gains, [1, 1, 1], 0.5).mask.any()


def test_only_positive_gains_are_taken_unless_agreement_pays_for_them():
    gains = np.array([[5.0, 0.0], [5.0, 0.0], [-1.0, -1.0]])
    assert choose_layers(gains, [2, 2, 2], 0.0).mask.tolist() == [[True, False], [True, False], [False] * 2]
    # The third client loses 1 and saves two disagreements.
    assert choose_layers(gains, [2, 2, 2], 0.6).mask.tolist() == [[True, False]] * 3


@examples(80)
@given(small(), st.booleans())
def test_no_client_is_over_its_budget_and_the_objective_is_that_of_the_mask(problem, prove):
    gains, budgets, lam = problem
    choice = choose_layers(gains, budgets, lam, prove=prove)
    assert choice.mask.dtype == np.bool_
    assert choice.mask.shape == gains.shape
    assert (choice.mask.sum(1) <= budgets).all()
    assert choice.objective == pytest.approx(objective_of(choice.mask, gains, lam), rel=1e-12, abs=1e-12)
    assert choice.bound >= choice.objective >= 0
    again = choose_layers(gains, budgets, lam, prove=prove)
    assert (again.mask == choice.mask).all()
    assert (again.objective, again.bound) == (choice.objective, choice.bound)


# --- what changes nothing ------------------------------------------------------------------------


@examples(80)
@given(small(clients=6, layers=5), st.randoms(use_true_random=False))
def test_the_order_of_clients_only_permutes_the_rows(problem, random):
    gains, budgets, lam = problem
    order = random.sample(range(len(gains)), len(gains))
    choice, other = choose_layers(gains, budgets, lam), choose_layers(gains[order], budgets[order], lam)
    assert (choice.mask[order] == other.mask).all()
    assert (choice.objective, choice.bound) == (other.objective, other.bound)


def test_with_costs_the_order_of_clients_only_permutes_the_rows():
    generator = np.random.default_rng(3)
    gains, _, lam = federation(3, 9, 8, 1.0)
    costs, reach = generator.integers(1, 5, 8), np.arange(8, 0, -1)
    budgets, order = generator.uniform(3, 20, 9), generator.permutation(9)
    choice = choose_layers(gains, budgets, lam, costs=costs, reach=reach)
    other = choose_layers(gains[order], budgets[order], lam, costs=costs, reach=reach)
    assert (choice.mask[order] == other.mask).all()
    assert (choice.objective, choice.bound) == (other.objective, other.bound)
    assert choice.mask.any()


def test_clients_that_are_alike_take_the_same_layers_and_lose_nothing_by_it():
    gains, budgets, lam = federation(4, 5, 6, 1.0)
    gains, budgets = np.repeat(gains, 3, axis=0), np.repeat(budgets, 3)
    choice = choose_layers(gains, budgets, lam)
    assert (choice.mask.reshape(5, 3, 6) == choice.mask.reshape(5, 3, 6)[:, :1]).all()
    # HiGHS with a row for each, which need not agree.
    assert choice.objective >= solved_by_highs(gains, budgets, lam).objective * (1 - 1e-5)


@examples(60)
@given(small(), st.integers(-60, 60))
def test_the_units_of_gains_and_lambda_change_nothing(problem, exponent):
    gains, budgets, lam = problem
    choice = choose_layers(gains, budgets, lam)
    scaled = choose_layers(gains * 2.0**exponent, budgets, lam * 2.0**exponent)
    assert (scaled.mask == choice.mask).all()
    assert scaled.objective == choice.objective * 2.0**exponent
    other = choose_layers(gains * 3.7, budgets, lam * 3.7)
    assert other.objective == pytest.approx(choice.objective * 3.7, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_very_small_and_very_large_units_are_like_any(scale):
    gains, budgets, lam = federation(1, 6, 5, 1.0)
    found = choose_layers(gains * scale, budgets, lam * scale)
    assert (found.mask == choose_layers(gains, budgets, lam).mask).all()


@pytest.mark.parametrize("costs", [None, np.linspace(1, 2.3, 8)])
def test_an_objective_beyond_float64_is_infinite_and_its_gap_is_known(costs):
    gains, budgets, lam = federation(2, 12, 8, 1.0)
    usual = choose_layers(gains, budgets, lam, costs=costs)
    assert usual.gap > 1e-6
    up = 2.0 ** (1023 - np.frexp(np.abs(gains).max())[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        largest = choose_layers(gains * up, budgets, lam * up, costs=costs)
        smaller = choose_layers(gains * up / 64, budgets, lam * up / 64, costs=costs)
    assert (largest.mask == usual.mask).all()
    assert (largest.objective, largest.bound, largest.gap) == (inf, inf, usual.gap)
    assert smaller.objective == usual.objective * (up / 64)
    assert smaller.bound == usual.bound * (up / 64)


def test_like_costs_are_numbers_of_layers():
    for seed in range(5):
        gains, budgets, lam = federation(seed, 9, 7, 0.7)
        counted = choose_layers(gains, budgets, lam)
        for costs, reach in [(None, np.zeros(7)), (np.full(7, 0.1), None), (np.full(7, 3.0), np.zeros(7))]:
            unit = 1.0 if costs is None else costs[0]
            bought = choose_layers(gains, budgets * unit, lam, costs=costs, reach=reach)
            assert (bought.mask == counted.mask).all()


def test_a_layer_that_alone_is_over_the_budget_is_never_taken():
    gains = np.array([[9.0, 1.0, 1.0], [9.0, 1.0, 1.0], [9.0, 1.0, 1.1]])
    costs, reach = np.array([5.0, 1.0, 1.0]), np.array([2.0, 1.0, 0.0])
    for lam in (0.0, 0.2, 2.0, inf):
        for exact in (False, True):
            mask = choose_layers(gains, [7.0, 7.0, 6.9], lam, costs=costs, reach=reach, exact=exact).mask
            assert not mask[2, 0]
            assert mask[0, 0] == (lam < inf), "worth 18 to two clients, for two disagreements"


# --- the game ------------------------------------------------------------------------------------


def test_answers_never_lower_the_objective_and_end_where_no_client_gains():
    for seed in range(20):
        gains, budgets, lam = federation(seed, 12, 8, 1.0)
        problem = Problem(gains, np.ones(12), lam, Counts(budgets))
        counts = np.random.default_rng(seed).integers(0, 13, (3, 8)).astype(float)
        worth = [problem.objectives(descend(problem, counts, rounds)) for rounds in range(1, 8)]
        assert (np.diff(worth, axis=0) >= -1e-9).all()
        mask = descend(problem, counts)[0]
        settled = settle(problem, mask)
        assert problem.objectives(settled) >= problem.objectives(mask) - 1e-9
        for client in range(12):
            others = settled.copy()
            others[client] = False
            marginal = gains[client] - lam * (11 - 2 * others.sum(0))
            own = marginal[settled[client]].sum()
            best = np.sort(np.maximum(marginal, 0))[::-1][: budgets[client]].sum()
            assert own == pytest.approx(best, abs=1e-9)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gains": [[1.0, nan], [1, 1]]}, r"gains\[0, 1\]: got nan; expected a finite number. Leave out"),
        ({"gains": [[1.0, 1], [-inf, 1]]}, r"gains\[1, 0\]: got -inf"),
        ({"gains": [1.0, 2.0]}, r"gains.shape: got \(2,\); expected 2 dimensions"),
        ({"gains": np.zeros((0, 2))}, "at least one client and one layer"),
        ({"gains": np.zeros((2, 0))}, "at least one client and one layer"),
        ({"gains": [["a", "b"]]}, "gains: got .*; expected an array of numbers"),
        ({"budgets": [1, 2, 3]}, r"budgets.shape: got \(3,\); expected \(2,\), one for each client"),
        ({"budgets": [1, -1]}, r"budgets\[1\]: got -1.0; expected a whole number of layers, 0 or more"),
        (
            {"budgets": [0.5, 1]},
            r"budgets\[0\]: got 0.5; expected a whole number.*With costs or reach it may",
        ),
        ({"budgets": [-0.5, 1], "costs": [1, 1]}, r"budgets\[0\]: got -0.5; expected 0 or more"),
        ({"budgets": [nan, 1]}, r"budgets\[0\]: got nan"),
        ({"lam": -1.0}, "lam: got -1.0; expected a number of at least 0, or infinity"),
        ({"lam": nan}, "lam: got nan"),
        ({"lam": "1"}, "lam: got '1'"),
        ({"costs": [1.0]}, r"costs.shape: got \(1,\); expected \(2,\), one for each layer"),
        ({"costs": [1.0, -1.0]}, "costs: got -1.0; expected numbers of at least 0"),
        ({"reach": [1.0, 2.0]}, r"reach\[1\]: got 2.0; expected at most 1, as for layer 0 below it.*nearest"),
        ({"reach": [inf, 2.0]}, r"reach\[0\]: got inf"),
    ],
    ids=str,
)
def test_what_is_no_problem_is_refused(changed, message):
    arguments = {"gains": [[1.0, 2.0], [2.0, 1.0]], "budgets": [1, 1], "lam": 0.5, **changed}
    with pytest.raises(InputError, match=message):
        choose_layers(arguments.pop("gains"), arguments.pop("budgets"), arguments.pop("lam"), **arguments)


def test_exact_refuses_what_highs_could_not_hold():
    with pytest.raises(InputError, match=r"exact: got '170 different clients and 24 layers'.*Use prove"):
        solved_by_highs(*federation(2, 170, 24, 1.5))


# --- normalise -----------------------------------------------------------------------------------


@examples(60)
@given(small(), st.floats(1e-3, 1e3))
def test_normalised_gains_have_mean_one_in_any_units(problem, scale):
    gains = problem[0]
    normal = normalise(gains)
    if not gains.any():
        assert (normal == 0).all()
        return
    assert normal.mean() == pytest.approx(1)
    assert normalise(gains * scale) == pytest.approx(normal)
    assert normal * gains.mean() == pytest.approx(gains)


def test_normalising_goes_by_magnitudes_and_survives_the_largest_numbers():
    assert normalise([[1.0, -3.0]]).tolist() == [[0.5, -1.5]]
    assert normalise([[1e308, 1e308], [1e308, 1e308]]).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert normalise([[5e-324, 0.0]]).tolist() == [[2.0, 0.0]]
    with pytest.raises(InputError, match=r"gains\[0, 0\]: got nan"):
        normalise([[nan]])
