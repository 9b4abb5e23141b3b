"""A round's metric, recomputed from the clients' own changes; the same bits whoever trains them."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.federations import features, tiny

from fedtlu_fast import InputError, simulate
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.build.run import open_run
from fedtlu_fast.participation.cohort import sample_cohort

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked")
METRICS = ("l2_per_parameter", "relative_change", "agreement")


def small(execution, metric="agreement", pooling="mean", **over):
    return features({"metric": metric, "pooling": pooling}, execution, **over)


def expected(config, metric, pooling, scored="all"):
    """The first round's block values from its clients' vectors, by NumPy."""
    parts = make_parts(config)
    trainer, layout = parts.trainer, parts.trainer.layout
    start = trainer.params.clone()
    cohort = sample_cohort(config.seed, 1, config.clients, config.cohort)
    changes, held = [], []
    for client in cohort:
        update = trainer.train(start, torch.empty(0), parts.population.train(client), 1, client)
        changes.append((update.params - start).double().numpy())
        held.append(update.samples)
    mean = np.average(changes, axis=0, weights=held)

    def value(layers):
        places = [layout.layers[layer] for layer in layers]
        where = np.concatenate([np.arange(x.offset, x.offset + x.numel) for x in places])
        norms = [np.linalg.norm(change[where]) for change in changes]
        below = {
            "l2_per_parameter": np.sqrt(len(where)),
            "relative_change": np.linalg.norm(start.double().numpy()[where]),
            "agreement": np.average(norms, weights=held),
        }[metric]
        return np.linalg.norm(mean[where]) / below

    matrix = [len(layer.shape) > 1 for layer in layout.layers]
    blocks = {
        block.name: [x for x in block.layers if scored == "all" or matrix[x] == (scored == "matrices")]
        for block in layout.blocks
    }
    if pooling == "pooled":
        return {name: value(layers) for name, layers in blocks.items()}
    return {name: np.mean([value([x]) for x in layers]) for name, layers in blocks.items()}


@pytest.mark.parametrize("pooling", ["mean", "pooled"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "execution",
    [
        {},
        {"lanes": 3},
        {"executor": "vectorized", "clients_per_batch": 3},
        {"engine": "compiled", "clients_per_batch": 3},
    ],
    ids=["one by one", "lanes", "vectorised", "compiled"],
)
def test_block_scores_are_the_formula_on_the_clients_changes(metric, pooling, execution):
    config = small(execution, metric, pooling, rounds=1)
    result = simulate(config)
    (row,) = result.selection
    assert row["block_scores"] == pytest.approx(expected(small({}), metric, pooling), rel=1e-3)
    like = [result.layout.blocks[block].name for block in result.layout.groups[0].blocks]
    assert [name for name in like if name in row["selected"]] == [max(like, key=row["block_scores"].get)]
    assert all(layer["value"] >= 0 for layer in row["layers"].values())
    assert result.summary["metric"] == metric


@pytest.mark.parametrize("scored", ["matrices", "vectors"])
@pytest.mark.parametrize("pooling", ["mean", "pooled"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("clients_per_batch", [1, 3])
def test_blocks_may_be_scored_by_their_matrices_or_vectors_alone(metric, pooling, scored, clients_per_batch):
    chosen = {"selector": "fedtlu", "keep": 1, "metric": metric, "pooling": pooling, "scored_layers": scored}
    way = {
        "executor": "serial" if clients_per_batch == 1 else "vectorized",
        "clients_per_batch": clients_per_batch,
    }
    result = simulate(small(way, rounds=1, selection=chosen))
    (row,) = result.selection
    found = row["block_scores"]
    assert found == pytest.approx(expected(small({}), metric, pooling, scored), rel=1e-3)
    like = [result.layout.blocks[block].name for block in result.layout.groups[0].blocks]
    best = max(like, key=found.get)
    assert [name for name in like if name in row["selected"]] == [best]
    kept = result.layout.layer_mask([[block.name for block in result.layout.blocks].index(best)])
    assert int(kept.sum()) == 2, "weight and bias are applied"
    all_layers = simulate(small(way, metric, pooling, rounds=1)).selection[0]["layers"]
    assert row["layers"] == all_layers, "of single layers the same is told"


@linux_only
@pytest.mark.parametrize("clients_per_batch", [1, 2])
def test_agreement_has_the_same_bits_with_any_number_of_workers(clients_per_batch):
    alone = "serial" if clients_per_batch == 1 else "vectorized"
    ways = [{"executor": alone}, *({"executor": "processes", "workers": count} for count in (1, 3))]
    found = [simulate(small({"clients_per_batch": clients_per_batch, "lanes": 4, **way})) for way in ways]
    assert found[0].selection[0]["block_scores"] != found[0].selection[1]["block_scores"]
    assert all(result.selection == found[0].selection for result in found)
    assert len({result.summary["params_sha256"] for result in found}) == 1


def test_refused_clients_have_no_part_in_agreement():
    """What one client holds makes its loss NaN: the others' agreement is the whole."""

    def first_round(execution):
        run = open_run(small({"client_errors": "drop", **execution}, rounds=1))
        bad = sample_cohort(0, 1, 20, 7)[2]
        population = run.server.population
        samples = population.train

        def train(client):
            held = samples(client)
            if client == bad:
                held.pool[0].fill_(float("nan"))
            return held

        object.__setattr__(population, "train", train)  # frozen; the executor holds the same one
        run.advance(1)
        run.close()
        return run.metrics[0]["refused"], run.selection[0]["block_scores"]

    refused, one_by_one = first_round({})
    assert len(refused) == 1
    assert all(0 < value <= 1 + 1e-6 for value in one_by_one.values())
    assert first_round({"executor": "vectorized", "clients_per_batch": 7})[1] == pytest.approx(
        one_by_one, rel=1e-3
    )


def test_one_client_agrees_with_itself():
    result = simulate(small({}, rounds=1, cohort=1))
    assert list(result.selection[0]["block_scores"].values()) == pytest.approx([1.0] * 5, rel=1e-5)


def test_the_metric_does_not_touch_what_is_trained(text: Path):
    """Only the choice differs: with every block applied, all metrics give one model."""
    found = [
        simulate(tiny(text, rounds=2, selection={"selector": "fedtlu", "keep": 1.0, "metric": metric}))
        for metric in ("excess", *METRICS)
    ]
    assert len({result.summary["params_sha256"] for result in found}) == 1
    assert len({str(result.selection[1]["block_scores"]) for result in found}) == 4
    assert "value" not in found[0].selection[0]["layers"]["transformer.wte.weight"]


def test_agreement_needs_the_mean():
    with pytest.raises(InputError, match=r"selection\.metric: got 'agreement'; expected another with aggr"):
        small({}, aggregation={"rule": "median"})
    with pytest.raises(InputError, match=r"selection\.metric"):
        small({}, metric="best")
