"""Metrics of single clients' changes in runs: every engine, rule and kind of choice; and under attack."""

import sys

import numpy as np
import pytest
import torch
from support import own_selectors
from support.federations import features
from support.own_selectors import Watching

from fedtlu_fast import InputError, simulate
from fedtlu_fast.build.recorded import BENEFIT
from fedtlu_fast.client_steps.roles import Roles
from fedtlu_fast.registry import NAMES
from fedtlu_fast.scoring.block_metrics import measure
from fedtlu_fast.scoring.units import unit_norms

METRICS = ("signal", "signal_to_noise", "clipped_norms", "votes", "pairs")
WAYS = {
    "one by one": {},
    "lanes": {"lanes": 3},
    "vectorised": {"executor": "vectorized", "clients_per_batch": 3},
    "compiled": {"engine": "compiled", "clients_per_batch": 3},
}
THREATS = ("shift:0.25:3.0", "scaling:0.25", "sign_flip:0.25", "a_little_is_enough:0.25")


def small(execution=None, selection=None, **over):
    return features(selection or {}, execution, **over)


@pytest.fixture
def seen():
    own_selectors.SEEN.clear()
    yield own_selectors.SEEN
    own_selectors.SEEN.clear()


@pytest.mark.parametrize("metric", METRICS)
def test_every_engine_gives_the_same_scores(metric):
    found = [
        simulate(small(way, rounds=1, selection={"metric": metric})).selection[0] for way in WAYS.values()
    ]
    for other in found[1:]:
        assert other["block_scores"] == pytest.approx(found[0]["block_scores"], rel=1e-3, abs=1e-9)
    assert len(set(found[0]["block_scores"].values())) > 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked")
@pytest.mark.parametrize("metric", METRICS)
def test_the_same_bits_with_any_number_of_workers(metric):
    ways = [{"executor": "serial"}, {"executor": "processes", "workers": 2}]
    found = [simulate(small({"lanes": 4, **way}, selection={"metric": metric})) for way in ways]
    assert found[0].selection == found[1].selection


@pytest.mark.parametrize("rule", sorted({*NAMES["rule"]} - {"krum"}))
def test_every_rule_has_them(rule, seen):
    more = {"byzantine": 1} if rule == "multi_krum" else {"trim": 0.2} if rule == "trimmed_mean" else {}
    simulate(small(selection={"selector": Watching(METRICS)}, aggregation={"rule": rule, **more}))
    assert len(seen) == 2
    for evidence, _, _ in seen:
        for name in METRICS:
            assert np.isfinite(evidence.metrics[name]).all()
            assert np.array_equal(evidence.metrics[name][0], measure(name, evidence.change).blocks.numpy())
        assert (evidence.metrics["clipped_norms"] > 0).all()


def test_the_norm_of_one_client_s_change_is_no_mean(seen):
    """Krum's aggregate is one client's change: what is said of the others' disagreement stays finite."""
    simulate(small(selection={"selector": Watching(METRICS)}, aggregation={"rule": "krum", "byzantine": 1}))
    assert all(np.isfinite(evidence.metrics[name]).all() for evidence, _, _ in seen for name in METRICS)


@pytest.mark.parametrize("moment", ["before_training", "after_training"])
def test_clients_that_send_some_blocks_count_in_those_alone(moment, seen):
    chooser = {"before_training": "random", "after_training": own_selectors.leaning}[moment]
    chosen = {"selector": chooser, "budget": 2, "frozen": "none", "always": "none"}
    result = simulate(
        small(selection={"selector": Watching((*METRICS, "agreement"))}, client_selection=chosen)
    )
    for (evidence, _, _), row in zip(seen, result.selection, strict=True):
        change, blocks = evidence.change, len(evidence.layout.blocks)
        expected = torch.zeros(7, blocks, dtype=torch.bool)
        for client, sent in enumerate(row.get("sent_blocks", row["client_blocks"])):
            expected[client, sent] = True
        assert change.client_sent.equal(expected)
        norms = unit_norms(change.client_stats, evidence.layout)[:, -blocks:]
        assert (norms[~expected] == 0).all(), "of what is not sent there is no change"
        held = change.client_weights[:, None] * expected
        mean = (held * norms).sum(dim=0) / held.sum(dim=0).clamp(min=1)
        torch.testing.assert_close(change.client_norms[-blocks:], mean, rtol=1e-9, atol=0)
        for name in METRICS:
            assert np.isfinite(evidence.metrics[name]).all()
        nobody = ~expected.any(dim=0).numpy()
        assert (evidence.metrics["clipped_norms"][0][nobody] == -1).all()
        assert (evidence.metrics["clipped_norms"][0][~nobody] > 0).all()


def test_where_everybody_sends_everything_nothing_more_is_kept(seen):
    simulate(small(rounds=1, selection={"selector": Watching(("votes",))}))
    assert seen[0][0].change.client_sent is None


@pytest.mark.parametrize("layers", ["all", "matrices"])
def test_all_scores_are_recorded_beside_the_benefit(layers):
    config = small(
        selection={"metric": "votes", "scored_layers": layers}, evaluation={"benefit": True, "held_out": 16}
    )
    for row in simulate(config).selection:
        scores = row["benefit"]["scores"]
        for name in NAMES["metric"].keys() - {BENEFIT}:  # which is recorded itself
            own = f", {layers}" if name == "agreement" and layers != "all" else ""
            for pooled in ("", ", pooled"):
                values = scores[name + pooled + own].values()
                assert all(map(np.isfinite, values))
                if name == "agreement":
                    assert all(0 < value <= 1 + 1e-6 for value in values)
        if layers == "all":
            own = {name: row["block_scores"][name] for name in scores["votes"]}
            assert scores["votes"] == own


def test_aligned_needs_samples_of_the_server():
    with pytest.raises(InputError, match=r"selection\.metric: got 'aligned'; expected evaluation\.held_out"):
        small(selection={"metric": "aligned"})
    result = simulate(small(selection={"metric": "aligned"}, evaluation={"held_out": 16}))
    assert all(np.isfinite(list(row["block_scores"].values())).all() for row in result.selection)


def test_aligned_is_near_the_benefit_of_a_small_step():
    """For a small step the loss falls as the gradient says."""
    config = small(
        rounds=1,
        selection={"metric": "aligned", "pooling": "pooled", "unique": "never"},
        evaluation={"held_out": 64, "benefit": True},
        training={"lr": 1e-3},
    )
    (row,) = simulate(config).selection
    before = row["benefit"]["before"]
    for name, loss in row["benefit"]["alone"].items():
        assert before - loss == pytest.approx(row["block_scores"][name], rel=0.1, abs=2e-7)


# --- hostile clients --------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "pooled"])
@pytest.mark.parametrize("threat", THREATS)
def test_a_threat_moves_a_vote_by_its_share_of_the_weights_at_most(threat, pooling, seen):
    chosen = {"selector": "fedtlu", "keep": 1, "metric": "votes", "pooling": pooling}
    honest, attacked = (
        simulate(small(rounds=1, cohort=12, selection=chosen, threats=threats)).selection[0]
        for threats in ([], [threat])
    )
    assert honest["cohort"] == attacked["cohort"]
    simulate(small(rounds=1, cohort=12, selection={"selector": Watching(("client_stats",))}))
    weights = seen[0][0].change.client_weights.numpy()
    hostile = np.array([Roles([0.25], 20, 0).role(client) is not None for client in honest["cohort"]])
    share = weights[hostile].sum() / weights.sum()
    assert 0 < share < 1
    moved = [abs(attacked["block_scores"][name] - value) for name, value in honest["block_scores"].items()]
    assert max(moved) <= share + 1e-9
    if threat.startswith(("scaling", "sign_flip")):
        assert max(moved) < 1e-9, "a factor on the whole change changes no rank"


def test_facts_of_colluders_are_of_what_they_send(seen):
    """They train honestly, and send something else, the same for all."""
    needs = ("client_stats", "client_norms", "client_values", "agreement")
    simulate(
        small(
            rounds=1,
            cohort=12,
            selection={"selector": Watching(needs)},
            threats=["a_little_is_enough:0.25:30.0"],
        )
    )
    ((evidence, _, _),) = seen
    change, row = evidence.change, evidence.change.client_stats.l2
    cohort = simulate(small(rounds=1, cohort=12)).selection[0]["cohort"]
    hostile = [at for at, client in enumerate(cohort) if Roles([0.25], 20, 0).role(client) is not None]
    assert len(hostile) > 1
    for at in hostile[1:]:
        assert row[at].equal(row[hostile[0]])
        assert change.client_values.values[at].equal(change.client_values.values[hostile[0]])
    largest = max(float(row[at].max()) for at in range(12) if at not in hostile)
    assert float(row[hostile[0]].max()) > 2 * largest, "thirty deviations are no honest change"
    norms = unit_norms(change.client_stats, evidence.layout)
    mean = (change.client_weights[:, None] * norms).sum(dim=0) / change.client_weights.sum()
    torch.testing.assert_close(change.client_norms, mean, rtol=1e-9, atol=0)
    assert (evidence.metrics["agreement"] <= 1 + 1e-6).all()
