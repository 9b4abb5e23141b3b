"""Selectors, scores and metrics of the user's own in a run: what they see, and that they decide."""

import sys

import numpy as np
import pytest
import torch
from support import own_selectors
from support.federations import features
from support.own_selectors import Keen, Outside, Watching, apart, broken, largest, leaning, short

from fedtlu_fast import InputError, simulate
from fedtlu_fast.aggregation import aggregate
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.own_code import own_code
from fedtlu_fast.participation.cohort import sample_cohort

WAYS = {
    "one by one": {},
    "lanes": {"lanes": 3},
    "vectorised": {"executor": "vectorized", "clients_per_batch": 3},
    "compiled": {"engine": "compiled", "clients_per_batch": 3},
}


def small(selector, execution=None, clients=None, **over):
    if clients is not None:
        over["client_selection"] = {"frozen": "none", "always": "none", **clients}
    return features({"selector": selector}, execution, **over)


@pytest.fixture
def seen():
    own_selectors.SEEN.clear()
    yield own_selectors.SEEN
    own_selectors.SEEN.clear()


def changes_of(config):
    """The first round's start, and its clients' changes and samples."""
    parts = make_parts(config)
    start = parts.trainer.params.clone()
    cohort = sample_cohort(config.seed, 1, config.clients, config.cohort)
    changes, held = [], []
    for client in cohort:
        update = parts.trainer.train(start, torch.empty(0), parts.population.train(client), 1, client)
        changes.append(update.params - start)  # the next client's training uses the same memory
        held.append(update.samples)
    return start, torch.stack(changes), held


def test_everything_that_a_selector_needs_is_there_several_at_once(seen):
    names = ("agreement", "excess", "relative_change", "support.own_selectors:largest", "client_stats")
    result = simulate(small(Watching(names)))
    alone = [simulate(small("fedtlu", selection={"metric": name, "keep": 1})) for name in names[:3]]
    for (evidence, room, mask), row, *own in zip(
        seen, result.selection, *(one.selection for one in alone), strict=True
    ):
        assert evidence.metrics.keys() == set(names[:4])
        assert row["block_scores"] == dict(
            zip(
                (block.name for block in evidence.layout.blocks),
                evidence.metrics["agreement"][0],
                strict=True,
            )
        )
        if evidence.round == 1:
            for name, one in zip(names, own, strict=False):
                assert list(one["block_scores"].values()) == evidence.metrics[name][0].tolist()
        assert room.kept(mask)
        assert evidence.rows == 1
        names_kept = [evidence.layout.blocks[at].name for at in mask[0].nonzero()[0]]
        assert set(names_kept) <= set(row["selected"])
    first, second = (evidence for evidence, _, _ in seen)
    assert (first.round, second.round, first.last_choice) == (1, 2, None)
    applied = [first.layout.blocks[at].name for at in second.last_choice.nonzero()[0]]
    assert applied == result.selection[0]["selected"]
    assert result.summary["metric"] == "agreement"


@pytest.mark.parametrize("execution", WAYS.values(), ids=WAYS)
def test_client_stats_are_those_of_the_clients_changes_whoever_trains_them(execution, seen):
    config = small(Watching(("client_stats",)), execution, rounds=1)
    simulate(config)
    start, changes, samples = changes_of(config)
    ((evidence, _, _),) = seen
    layout = ParameterLayout.from_module(make_parts(config).trainer.task.model)
    expected = aggregate(changes, [1.0] * len(changes), layout, client_stats=True).client_stats
    assert evidence.client_stats is evidence.change.client_stats
    for name in ("count", "mean", "std", "l2", "abs_max", "nonfinite"):
        np.testing.assert_allclose(
            getattr(evidence.client_stats, name), getattr(expected, name), rtol=1e-3, atol=1e-7
        )
    assert evidence.change.client_weights.tolist() == samples
    assert torch.equal(evidence.parameters, start)
    mean = np.average(changes.double().numpy(), axis=0, weights=samples)
    np.testing.assert_allclose(
        evidence.stats.l2[0], np.linalg.norm(mean[: layout.layers[0].numel]), rtol=1e-3
    )


def test_nothing_is_computed_of_single_clients_unless_it_is_asked_for(seen):
    simulate(small(Watching(("excess",)), rounds=1))
    ((evidence, _, _),) = seen
    assert evidence.client_stats is evidence.change.client_norms is evidence.change.client_weights is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked")
@pytest.mark.parametrize("clients_per_batch", [1, 3])
def test_a_score_of_single_clients_has_the_same_bits_with_any_number_of_workers(clients_per_batch):
    alone = "serial" if clients_per_batch == 1 else "vectorized"
    ways = [{"executor": alone}, *({"executor": "processes", "workers": count} for count in (1, 2))]
    found = [
        simulate(small(apart, {"clients_per_batch": clients_per_batch, "lanes": 4, **way})) for way in ways
    ]
    assert all(result.selection == found[0].selection for result in found)
    assert len({result.summary["params_sha256"] for result in found}) == 1


@pytest.mark.parametrize("score", [largest, apart])
def test_a_score_is_a_selector_and_a_metric(score):
    """The blocks that it names best are chosen, by either road."""
    name = f"support.own_selectors:{score.__name__}"
    as_selector = simulate(small(name))
    as_metric = simulate(small("fedtlu", selection={"metric": name, "keep": 1}))
    assert as_selector.summary["params_sha256"] == as_metric.summary["params_sha256"]
    assert as_selector.summary["params_sha256"] == simulate(small(score)).summary["params_sha256"]
    row = as_metric.selection[0]
    like = [as_metric.layout.blocks[block].name for block in as_metric.layout.groups[0].blocks]
    assert [own for own in like if own in row["selected"]] == [max(like, key=row["block_scores"].get)]
    assert "value" not in next(iter(row["layers"].values()))
    assert as_selector.summary["selector"] == as_metric.summary["metric"] == name


def test_a_score_of_a_client_s_own_change_says_what_it_sends():
    """As the selector does that is made of the same metric."""
    chosen = [{"selector": leaning, "budget": 2}, {"selector": Leaning(), "budget": 2}]
    found = [simulate(small("full", clients=own)) for own in chosen]
    rows = [[row["sent_blocks"] for row in result.selection] for result in found]
    assert rows[0] == rows[1]
    assert all(len(sent) == 2 for row in rows[0] for sent in row)
    assert len({str(sent) for row in rows[0] for sent in row}) > 2


class Leaning(own_selectors.Selector):
    """The blocks whose change has the largest mean."""

    moment = "by_change"
    needs = ("support.own_selectors:lean",)

    def choose(self, evidence, room):
        """See the class."""
        return room.best(evidence.metrics[self.needs[0]])


def test_clients_measure_all_that_a_selector_needs(seen):
    names = ("snr", "gradnorm", "support.own_selectors:lean")
    both = {"selector": Watching(names), "budget": 2}
    result = simulate(small("full", clients=both))
    for name in names[:2]:
        alone = simulate(small("full", clients={"selector": Watching((name,)), "budget": 2}))
        assert alone.selection[0]["gains"] == seen[0][0].metrics[name].tolist()
    assert [row["gains"] for row in result.selection] == [
        evidence.metrics["snr"].tolist() for evidence, _, _ in seen[:2]
    ]
    evidence, room, mask = seen[0]
    assert evidence.metrics["support.own_selectors:lean"].shape == (7, len(evidence.layout.blocks))
    assert evidence.change is None
    assert room.kept(mask)
    assert len(evidence.generators) == evidence.rows == 7


def test_the_same_class_serves_the_server_and_the_clients():
    server = simulate(small(Keen(), rounds=3))
    assert len({str(row["selected"]) for row in server.selection}) == 1
    name = "support.own_selectors:Keen"
    clients = simulate(small("full", clients={"selector": name, "budget": 1, "boost": 0.5}, rounds=3))
    assert {str(row["client_blocks"]) for row in clients.selection} == {str([[0]] * 7)}
    assert clients.summary["client_selector"] == name


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (broken, r"selector: got 'broken'; expected a function of a Change; .*no luck"),
        (short, r"selector: got \(2,\); expected short to return shape \(5,\)"),
        (
            "fedtlu:broken",
            r"metric: got 'support.own_selectors:broken'; expected a function of a Change; .*no l",
        ),
    ],
)
def test_what_a_function_does_wrong_is_said(selector, message):
    chosen = {"selector": selector, "keep": 1}
    if selector == "fedtlu:broken":
        chosen = {"metric": "support.own_selectors:broken", "keep": 1}
    with pytest.raises(InputError, match=message):
        simulate(small("fedtlu", selection=chosen))


def test_blocks_that_may_not_be_chosen_are_refused_by_name():
    with pytest.raises(InputError, match=r"selector: got '0'; expected Outside to choose only open blocks"):
        simulate(small("full", clients={"selector": Outside(), "budget": 1, "frozen": "0"}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"selection": {"selector": Watching(("gradnorm",))}},
            r"selector: got 'gradnorm'; expected one of ex",
        ),
        ({"selection": {"metric": "exces"}}, r"selection\.metric: got 'exces'. Did you mean excess\?"),
        (
            {"client_selection": {"selector": Watching(("excess",)), "budget": 1}},
            r"client_selection\.selector \(Watching.needs\): got 'excess'; expected one of gradnorm, rgn",
        ),
        (
            {"selection": {"selector": Watching(("agreement",))}, "aggregation": {"rule": "median"}},
            r"selection\.selector: got 'support.own_selectors:Watching'; expected another with aggregation",
        ),
    ],
)
def test_needs_that_nothing_meets_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        parse_config(given)


@pytest.mark.parametrize(
    "given",
    [
        {"selection": {"selector": largest}},
        {"selection": {"metric": "support.own_selectors:largest"}},
        {"selection": {"selector": Watching(("support.own_selectors:largest",))}},
        {"client_selection": {"selector": largest, "budget": 1}},
    ],
)
def test_the_code_of_scores_and_metrics_belongs_to_a_run_s_identity(given):
    assert "support.own_selectors:largest" in own_code(parse_config(given).parts())


def test_the_code_of_client_metrics_belongs_to_it_too():
    chosen = {"selector": "strategic", "metric": "support.own_selectors:lean", "budget": 1}
    assert own_code(parse_config({"client_selection": chosen}).parts()).keys() == {
        "support.own_selectors:lean"
    }
