from pathlib import Path

import numpy as np
import pytest
from support.federations import left, tiny
from support.own_selectors import Keen, largest

from fedtlu_fast import InputError, RunConfig, simulate
from fedtlu_fast.build.client_rule import standing_of
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.costs.flops import measure_costs
from fedtlu_fast.data.population import example_samples
from fedtlu_fast.experiments.compare import compare
from fedtlu_fast.experiments.references import with_warmup
from fedtlu_fast.experiments.variants import crossed, swept, with_variant
from fedtlu_fast.registry import find
from fedtlu_fast.selection import FedTLU, Full, FunctionSelector, GradNorm, Last, Random, Strategic

KEEN = "support.own_selectors:Keen"


@pytest.fixture(scope="module")
def config(text: Path) -> RunConfig:
    return tiny(text)


@pytest.mark.parametrize("name", ["fedtlu", "random", "last", "first", "full"])
def test_names_of_the_servers_selectors_leave_the_clients_alone(config: RunConfig, name: str) -> None:
    found = with_variant(config, name)
    expected = config.selection.model_copy(update={"selector": find("selector", name, "selector")()})
    assert found == config.model_copy(update={"selection": expected})


def test_a_budget_makes_a_selector_the_clients(config: RunConfig) -> None:
    found = with_variant(config, "random@2")
    assert (found.client_selection.selector, found.selection.selector) == (Random(), Full())
    assert found.client_selection.budget == with_variant(config, "top@2").client_selection.budget
    assert with_variant(config, "full@all").client_selection.selector == Full()
    assert with_variant(config, "fedpart") == with_variant(config, "fedpart@all")


def test_settings_follow_the_name(config: RunConfig) -> None:
    found = with_variant(config, "strategic@2+lam=0.5+metric=snr+training.lr=0.25")
    assert found.client_selection.selector == Strategic("snr", 0.5)
    assert found.training.optimizer.lr == 0.25
    both = with_variant(config, "top@1+selection.selector=fedtlu")
    assert (both.client_selection.selector, both.selection.selector) == (Last(), FedTLU())


def test_what_the_arms_share_holds_for_those_that_know_it(config: RunConfig) -> None:
    probing = with_variant(config, "strategic@1+probe_batches=3+lam=2.0+always=none")
    assert with_variant(probing, "gradnorm@2").client_selection.selector == GradNorm(3)
    top = with_variant(probing, "top@2").client_selection
    assert (top.selector, top.always) == (Last(), "none")


def test_selectors_of_ones_own_go_by_their_dotted_names(config: RunConfig) -> None:
    server = with_variant(config, f"{KEEN}+selection.boost=2")
    assert (server.selection.selector, server.client_selection.chooses) == (Keen(2.0), False)
    clients = with_variant(config, f"{KEEN}@1..2+boost=3+frozen=none")
    assert (clients.client_selection.selector, clients.selection.selector) == (Keen(3.0), Full())
    assert (clients.client_selection.budget.budget.high, clients.client_selection.frozen) == (2, "none")
    score = with_variant(config, "support.own_selectors:largest@1")
    assert score.client_selection.selector == FunctionSelector(largest)
    for short, long in (
        (f"{KEEN}:2", f"{KEEN}+selection.boost=2"),
        ("fedtlu:agreement", "fedtlu+selection.metric=agreement"),
        (f"{KEEN}:3@1..2+frozen=none", f"{KEEN}@1..2+boost=3+frozen=none"),
        ("strategic:snr@2+lam=0.5", "strategic@2+metric=snr+lam=0.5"),
        ("fedpart:2:1", "fedpart+rounds_per_block=2+full_rounds=1"),
    ):
        assert with_variant(config, short) == with_variant(config, long)
    assert crossed(["strategic:snr", f"{KEEN}:2"], ["1"]) == ["strategic:snr@1", f"{KEEN}:2"]
    assert swept(["strategic:snr@1"], ["lam=0,1"]) == ["strategic:snr@1+lam=0", "strategic:snr@1+lam=1"]
    assert crossed([KEEN, f"{KEEN}@2", "top"], ["1"]) == [KEEN, f"{KEEN}@2", "top@1"]
    assert swept([f"{KEEN}@2", "top@1"], ["boost=1,2"]) == [*(f"{KEEN}@2+boost={k}" for k in (1, 2)), "top@1"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{KEEN}@all", "a budget"),
        (f"{KEEN}@2+bost=1", "this key is unknown"),
        (f"{KEEN}@2+boost=-1", "greater than or equal to 0"),
        ("support.own_selectors:Nobody", "no attribute 'Nobody'"),
        ("support.own_selectors:Nobody@2", "no attribute 'Nobody'"),
        (f"{KEEN}:1:2@2", r"selectors: .*at most 1 values after .*Keen: boost"),
        ("top:1@2", r"selectors: .*it has no parameters"),
        ("fedpart:0", "greater than or equal to 1"),
        ("top", "a budget"),
        ("top@all", "a budget"),
        ("full@2", "takes no budget"),
        ("fedtlu@2", "before the @"),
        ("best", "some of fedtlu"),
        ("zero_shot@2", "zero_shot alone"),
        ("local_only+training.lr=1", "local_only alone"),
        ("fedtlu+rounds=77", "the same rounds"),
        ("fedtlu+warmup_rounds=0", "the same warmup_rounds"),
        ("top@2+seed=7", "the same seed"),
        ("strategic@2+lamb=1", "this key is unknown"),
        ("top@2+lam=1", "does not use it"),
    ],
)
def test_names_that_mean_nothing_are_errors(config: RunConfig, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        with_variant(config, name)


def test_budgets_are_crossed_with_the_selectors_that_go_by_one() -> None:
    names = ["top", "random", "full", "fedpart", "fedtlu", "zero_shot"]
    assert crossed(names, ["1", "1..4"]) == [
        *("top@1", "top@1..4", "random@1", "random@1..4", "full@all", "fedpart@all", "fedtlu", "zero_shot")
    ]
    assert crossed(names, []) == names


@pytest.mark.usefixtures("in_process")
def test_arms_of_the_clients_are_the_runs_they_would_be_alone(config: RunConfig, tmp_path: Path) -> None:
    names = ("strategic@1", "fedluar@2", "zero_shot", "after_warmup", "local_only")
    found = {arm.selector: arm for arm in compare(config, names, (1,), tmp_path / "out", jobs=1)}
    for name in names[:2]:
        settings = with_variant(config, name).model_copy(update={"seed": 1})
        simulate(settings, tmp_path / name)
        assert left(tmp_path / "out" / f"{name}-seed1") == left(tmp_path / name)
    start = simulate(
        with_variant(config, "full").model_copy(update={"seed": 1, "rounds": 2, "warmup_rounds": 2}),
        tmp_path / "start",
    )
    references = found["after_warmup"].summary, found["local_only"].summary
    for summary in references:
        assert summary["params_sha256"] == start.summary["params_sha256"]
        assert summary["rounds"] == 2
    assert references[0]["test_loss"] == start.summary["test_loss"]
    assert references[1]["test_loss"] != start.summary["test_loss"]
    before = found["zero_shot"].summary
    assert (before["rounds"], before["targeted_rounds"]) == (0, 0)
    for name in names:
        assert found[name].summary["start_test_loss"] == before["test_loss"] == before["start_test_loss"]
    assert before["test_loss"] != start.summary["test_loss"]


def test_the_model_after_the_warm_up_goes_with_the_one_before_it() -> None:
    assert with_warmup(["full", "zero_shot", "last"], 2) == ["full", "zero_shot", "after_warmup", "last"]
    assert with_warmup(["after_warmup", "zero_shot"], 2) == ["after_warmup", "zero_shot"]
    assert with_warmup(["full", "zero_shot"], 0) == ["full", "zero_shot"]
    assert with_warmup(["full"], 2) == ["full"]


@pytest.mark.usefixtures("in_process")
def test_a_client_alone_is_trained_as_often_as_it_would_take_part(text: Path, tmp_path: Path) -> None:
    same = {"warmup_rounds": 0, "clients": 2, "cohort": 1, "selection": {"selector": "full"}}
    config = tiny(text, **same, rounds=4, evaluation={"trained_clients": 2})
    found = compare(config, ("local_only",), (0,), tmp_path / "out", jobs=1)[0].summary
    losses = []
    for client in range(2):
        alone = {"sampler": "fixed", "members": [client]}
        run = simulate(tiny(text, **same, rounds=2, participation=alone))
        losses.append(run.summary["test_loss"])
    assert found["test_loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_a_sweep_is_over_the_arms_that_know_the_setting() -> None:
    names = ["top@2", "strategic@2", "fedtlu", "zero_shot"]
    assert swept(names, ["lam=0,1"]) == [
        "top@2",
        "strategic@2+lam=0",
        "strategic@2+lam=1",
        "fedtlu",
        "zero_shot",
    ]
    twice = swept(["strategic@2"], ["lam=0,1", "metric=snr,rgn"])
    assert twice == [f"strategic@2+lam={lam}+metric={metric}" for lam in (0, 1) for metric in ("snr", "rgn")]
    assert swept(names, ["training.lr=0.1"]) == [f"{name}+training.lr=0.1" for name in names[:3]] + names[3:]
    assert swept(["random@1"], ["budget.unit=layers"]) == ["random@1+budget.unit=layers"]
    for sweep in ("lam", "lam=", "probability=0.5"):
        with pytest.raises(InputError, match="sweeps: got"):
            swept(names, [sweep])
    with pytest.raises(InputError, match=r"Did you mean lam\?"):
        swept(names, ["lamb=1"])


@pytest.mark.usefixtures("in_process")
def test_arms_that_choose_bring_all_to_an_engine_that_can(tmp_path: Path) -> None:
    settings = parse_config(
        {
            "task": "classification",
            "rounds": 1,
            "clients": 30,
            "cohort": 20,
            "data": {"source": "synthetic"},
            "training": {"local_steps": 2},
            "selection": {"granularity": "module", "selector": "full"},
        }
    )
    found = compare(settings, ("full", "top@1"), (0,), tmp_path / "out")
    assert [arm.summary["client_selector"] for arm in found] == ["none", "top"]


def test_what_does_not_fit_the_model_is_found_before_anything_runs(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a block's name"):
        compare(config, ("fedtlu", "top@1+frozen=nothing"), (0,), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("unit", ["parameters", "flops"])
@pytest.mark.parametrize("selector", ["top", "bottom", "gradnorm", "strategic"])
def test_what_a_client_trains_costs_no_more_than_its_share(text: Path, selector: str, unit: str) -> None:
    config = with_variant(tiny(text, warmup_rounds=0, rounds=2), f"{selector}@0.45+budget.unit={unit}")
    parts = make_parts(config)
    layout, example = parts.trainer.layout, example_samples(parts.population)
    costs = measure_costs(parts.trainer.task, layout, example.take(np.arange(2)))
    chosen = standing_of(config, layout).open
    sets = [set(own) & set(chosen) for row in simulate(config).selection for own in row["client_blocks"]]
    assert any(sets)
    for own in map(sorted, sets):
        if unit == "parameters":
            spent = sum(costs.parameters[own]) / layout.size
        else:
            spent = costs.backward(costs.mask(own)) / costs.backward(np.ones(len(layout.blocks), np.bool_))
        assert spent <= 0.45 * (1 + 1e-9)
