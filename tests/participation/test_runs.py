"""Whole federations in which not all clients take part: their records, and killed runs that are resumed."""

import json
from pathlib import Path

import pytest
import torch
from support.federations import left, rows, timeless, tiny, tree

from fedtlu_fast import InputError, simulate
from fedtlu_fast.cli.main import main

GIVEN = [
    {"sampler": "size"},
    {"sampler": "loss", "candidates": 6},
    {"sampler": "loss", "over_selection": 1.5, "dropout": 0.3, "duty": 0.5, "period": 4},
    {"sampler": "fixed", "dropout": 0.4},
]


class Killed(BaseException):
    """Raised in place of the end of the process."""


def federation(text: Path, given, **over):
    return tiny(text, clients=8, cohort=4, rounds=6, participation=given, **over)


def begun(config, out: Path, rounds: int) -> None:
    def kill(row):
        if row["round"] == rounds:
            raise Killed

    with pytest.raises(Killed):
        simulate(config, out, callbacks=[kill])


@pytest.mark.parametrize("given", GIVEN, ids=lambda given: "-".join(map(str, given.values())))
@pytest.mark.parametrize("rounds", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_bits(text, tmp_path, given, rounds):
    config = federation(text, given)
    simulate(config, tmp_path / "whole")
    begun(config, tmp_path / "out", rounds)
    simulate(config, tmp_path / "out", resume=True)
    assert left(tmp_path / "out") == left(tmp_path / "whole")


def test_losses_are_in_the_checkpoint_and_decide_the_draw(text, tmp_path):
    """A run without losses draws other clients, so the test above would fail if losses were lost."""
    config = federation(text, {"sampler": "loss", "candidates": 8}, checkpoint={"every": 1, "retain": 9})
    result = simulate(config, tmp_path / "out")
    files = sorted(path.name for path in (tmp_path / "out/checkpoints/round-000004").iterdir())
    assert files == ["memory.safetensors", "model.safetensors", "state.json"]
    by_size = simulate(federation(text, {"sampler": "size"}))
    assert [row["cohort"] for row in result.selection] != [row["cohort"] for row in by_size.selection]
    # 8 candidates, 4 a round: clients that have not trained come first, so that after two rounds all have.
    first, second, third = (row["cohort"] for row in result.selection[:3])
    assert sorted([*first, *second]) == list(range(8))
    assert set(third) != set(first)


@pytest.mark.usefixtures("in_process")
def test_arms_that_share_a_warm_up_share_its_losses(text, tmp_path):
    from fedtlu_fast.experiments.compare import compare

    config = federation(text, {"sampler": "loss", "candidates": 6}, warmup_rounds=3)
    compare(config, ["fedtlu", "random"], [0], tmp_path / "out", jobs=1)
    simulate(config, tmp_path / "alone")
    assert left(tmp_path / "out/fedtlu-seed0") == left(tmp_path / "alone")


def test_the_records_name_drawn_and_dropped_clients(text):
    result = simulate(federation(text, {"over_selection": 1.5, "dropout": 0.3}))
    seen = set()
    for choice, metrics in zip(result.selection, result.metrics, strict=True):
        dropped = {int(client) for client in metrics["dropped"]}
        assert len(choice["drawn"]) == 6
        assert set(choice["cohort"]) == set(choice["drawn"]) - dropped
        assert metrics["trained"] == len(choice["cohort"]) <= 4
        seen |= set(metrics["dropped"].values())
    assert seen == {"no answer", "too late"}
    assert result.summary["dropped_clients"] == sum(len(row["dropped"]) for row in result.metrics)


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_a_round_without_participants_changes_and_publishes_nothing(text, tmp_path, rule):
    path = tmp_path / "trace.csv"
    path.write_text("client,first,last\n0,1,2\n1,1,2\n1,5,6\n")
    aggregation = {"rule": rule, "spill": str(tmp_path)} if rule == "median" else {}
    config = federation(
        text, {"trace": str(path)}, checkpoint={"every": 1, "retain": 9}, aggregation=aggregation
    )
    out = tmp_path / "out"
    result = simulate(config, out)
    assert [row["trained"] for row in result.metrics] == [2, 2, 0, 0, 1, 1]
    for row, choice in zip(result.metrics[2:4], result.selection[2:4], strict=True):
        assert (row["train_loss"], row["selected"], row["updated_share"]) == (None, [], 0)
        assert (row["bytes_up"], row["bytes_published"]) == (0, 0)
        assert (choice["drawn"], choice["cohort"]) == ([], [])
        assert row["test_loss"] == result.metrics[1]["test_loss"]
    digests = [
        json.loads(file.read_text())["params_sha256"]
        for file in sorted((out / "checkpoints").glob("round-*/state.json"))
    ]
    assert digests[1] == digests[2] == digests[3] != digests[4]
    assert (out / "report.html").exists()


def test_a_run_with_a_changed_trace_is_not_resumed(text, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("client,first,last\n0,1,9\n1,1,9\n")
    config = federation(text, {"trace": str(path)})
    begun(config, tmp_path / "out", 3)
    path.write_text("client,first,last\n0,1,9\n2,1,9\n")
    with pytest.raises(InputError, match=r"this run's trace \(participation.trace\); they have changed"):
        simulate(config, tmp_path / "out", resume=True)


def test_all_executors_train_the_participants(text):
    given = {"sampler": "loss", "dropout": 0.5, "duty": 0.5, "period": 2}
    one, other = (
        simulate(federation(text, given, execution={"executor": name, "workers": 2, "clients_per_batch": 1}))
        for name in ("serial", "processes")
    )
    assert torch.equal(one.params, other.params)
    assert timeless(one.metrics) == timeless(other.metrics)


def test_the_command_resumes_a_run_whose_draw_depends_on_losses(text, tmp_path, monkeypatch, capsys):
    settings = tree(text, clients=8, cohort=3, rounds=6, participation={"sampler": "loss", "dropout": 0.2})
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    simulate(settings, tmp_path / "whole")
    begun(tiny(text, **settings), tmp_path / "out", 3)
    monkeypatch.setattr("sys.argv", ["fedtlu", "run", "--resume", str(tmp_path / "out"), "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    summary = json.loads(capsys.readouterr().out)
    assert left(tmp_path / "out") == left(tmp_path / "whole")
    assert summary["dropped_clients"] == sum(
        len(row["dropped"]) for row in rows(tmp_path / "out" / "metrics.jsonl")
    )


@pytest.mark.parametrize("executor", ["serial", "vectorized", "processes"])
def test_cohorts_larger_than_their_mean_train_on_every_executor(text, executor):
    """Under Poisson sampling the cohort has any size; some rounds here have more clients than `cohort`."""
    many = {"clients_per_batch": 8} if executor == "vectorized" else {"clients_per_batch": 1}
    execution = {"executor": executor, **many}
    found = simulate(
        tiny(text, clients=8, cohort=3, participation={"sampler": "poisson"}, execution=execution)
    )
    assert max(row["trained"] for row in found.metrics) > 3
    alone = {"executor": "serial", "clients_per_batch": 1}
    again = simulate(tiny(text, clients=8, cohort=3, participation={"sampler": "poisson"}, execution=alone))
    torch.testing.assert_close(found.params, again.params, rtol=1e-3, atol=1e-5)
