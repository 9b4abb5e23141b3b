"""Names of arms are read as `experiments.variants` reads them, and parts say whether they look at samples."""

import pytest

from fedtlu_fast.report.arms import baseline_of, budget_of, is_random, selector_of
from fedtlu_fast.report.held_out import looks_at_held_out
from fedtlu_fast.runs.results import ArmResult


@pytest.mark.parametrize(
    ("name", "budget", "selector"),
    [
        ("full", None, "full"),
        ("full@all", None, "full"),
        ("strategic@2+lam=0.1", "2", "strategic+lam=0.1"),
        ("top@1..4", "1..4", "top"),
        ("x+data.source=hf:a@b", None, "x+data.source=hf:a@b"),
        ("x@2+data.source=hf:a@b+lam=1", "2", "x+data.source=hf:a@b+lam=1"),
    ],
)
def test_a_budget_stands_before_the_settings(name: str, budget: str | None, selector: str) -> None:
    assert (budget_of(name), selector_of(name)) == (budget, selector)


RECORDED = "random+evaluation.benefit=true"


@pytest.mark.parametrize(
    ("name", "names", "baseline"),
    [
        ("fedtlu", [RECORDED, "random"], "random"),
        ("fedtlu", ["fedtlu", RECORDED], RECORDED),
        ("fedtlu", ["random+server.lr=0.1", "random@2+evaluation.benefit=true"], "random"),
        (
            "top@2",
            ["random", RECORDED, "random@2+evaluation.benefit=true"],
            "random@2+evaluation.benefit=true",
        ),
        ("top@2+lam=0.5", ["random@2"], "random@2"),
    ],
)
def test_a_random_arm_that_only_records_more_stands_in_for_the_plain_one(
    name: str, names: list[str], baseline: str
) -> None:
    assert baseline_of(name, names) == baseline


def test_only_settings_that_record_leave_an_arm_random() -> None:
    assert all(map(is_random, ("random", "random@2", RECORDED, "random@2+evaluation.benefit=true")))
    assert not any(map(is_random, ("fedtlu", "random+selection.keep=1", f"{RECORDED}+evaluation.held_out=9")))


@pytest.mark.parametrize(
    ("name", "selector", "metric", "client_selector", "looks"),
    [
        ("oracle", "oracle", "excess", "none", True),
        ("oracle+selection.sets=4", "oracle", "excess", "none", True),
        ("fedtlu:benefit", "fedtlu", "benefit", "none", True),
        ("smoothed:aligned", "smoothed", "aligned", "none", True),
        ("fedtlu:signal", "fedtlu", "signal", "none", False),
        ("random+evaluation.benefit=true", "random", "excess", "none", False),
        ("oracle@2", "full", "excess", "oracle", True),
        ("strategic:benefit@2", "full", "excess", "strategic", True),
        ("strategic@2+metric=benefit", "full", "excess", "strategic", True),
        ("strategic:snr@2", "full", "excess", "strategic", False),
        ("top@2", "full", "excess", "top", False),
        ("top@2+selection.selector=fedtlu:benefit", "fedtlu", "benefit", "top", True),
        ("nowhere:Mine", "nowhere:Mine", "excess", "none", False),
    ],
)
def test_parts_say_themselves_whether_they_look_at_held_out_samples(
    name: str, selector: str, metric: str, client_selector: str, looks: bool
) -> None:
    summary = {"selector": selector, "metric": metric, "client_selector": client_selector}
    assert looks_at_held_out(ArmResult(name, 0, summary, [], [])) is looks


def test_runs_of_earlier_versions_may_name_nothing() -> None:
    assert not looks_at_held_out(ArmResult("oracle", 0, {}, [], []))
