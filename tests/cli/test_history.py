import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.federations import rows as logged
from support.federations import tiny

from fedtlu_fast import simulate
from fedtlu_fast.experiments.compare import compare

Command = Callable[..., Any]


@pytest.mark.draws
def test_history_prints_tables_json_and_a_picture(fedtlu: Command, text: Path, tmp_path: Path) -> None:
    simulate(tiny(text, rounds=5, warmup_rounds=2, selection={"pooling": "pooled"}), tmp_path / "run")
    done = fedtlu("history", tmp_path / "run", "--plot", tmp_path / "ranks.png")
    assert (done.code, done.stderr) == (0, "")
    for words in (
        "fedtlu, excess (pooled), 3 targeted rounds",
        "Kendall's",
        "norm weight",
        "the shares describe the mean",
    ):
        assert words in done.stdout
    assert (tmp_path / "ranks.png").read_bytes()[:4] == b"\x89PNG"
    told = json.loads(fedtlu("history", tmp_path / "run", "--json").stdout)
    assert [row["lag"] for row in told["stability"]] == [1, 2]


def test_history_says_what_cannot_be_compared(fedtlu: Command, text: Path, tmp_path: Path) -> None:
    simulate(tiny(text, rounds=1, warmup_rounds=0, selection={"granularity": "tensor"}), tmp_path / "run")
    done = fedtlu("history", tmp_path / "run")
    assert done.code == 0
    assert re.fullmatch(
        r"Selection decides over \d+% of the model's parameters \(groups .* do not count\)\.\n", done.stdout
    )
    assert "only one targeted round" in done.stderr
    assert "All layers are of one kind" in done.stderr
    missing = fedtlu("history", tmp_path / "gone")
    assert (missing.code, missing.stdout) == (2, "")
    assert "error: RUN_DIR" in missing.stderr
    nowhere = fedtlu("history", tmp_path / "run", "--plot", tmp_path / "no" / "p.png")
    assert nowhere.code == 2
    assert "--plot" in nowhere.stderr
    several = fedtlu("history", tmp_path / "run", tmp_path / "run")
    assert (several.code, several.stdout) == (2, "")
    assert "Only --benefit takes several" in several.stderr


RECORDED: dict[str, Any] = {"model": {"layers": 4}, "evaluation": {"benefit": True, "held_out": 8}}


def test_history_shows_what_benefits_say_of_scores(fedtlu: Command, text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    simulate(tiny(text, rounds=4, warmup_rounds=1, **RECORDED), run)
    done = fedtlu("history", run, "--benefit")
    assert (done.code, done.stderr) == (0, "")
    for words in ("best 1 of 4", "excess, pooled", "smoothed", "4 rounds", "nats a round"):
        assert words in " ".join(done.stdout.split())
    told = json.loads(fedtlu("history", run, "--benefit", "--json").stdout)
    assert (told["runs"], told["rounds"], told["left_out"]) == (1, 4, 0)
    assert list(told["keep"].values()) == [1]
    by_name = {row["score"]: row for row in told["scores"]}
    assert by_name["agreement"]["needs"] == "clients"
    assert by_name["excess, smoothed"]["needs"] == "aggregate"
    for row in told["scores"]:
        assert row["rounds"] == 4
        assert row["share"]["value"] <= 1
        assert -1 <= row["tau"]["value"] <= 1
    losses = [row["benefit"] for row in logged(run / "selection.jsonl")]
    gains = [[row["before"] - loss for loss in row["alone"].values()] for row in losses]
    first = sum(row[0] - sum(row) / 4 for row in gains) / sum(max(row) - sum(row) / 4 for row in gains)
    assert by_name["first"]["share"]["value"] == pytest.approx(first)
    assert sum(row["best"] for row in told["blocks"]) == pytest.approx(1)
    assert sum(row["chosen"] for row in told["blocks"]) == pytest.approx(1)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Which scores find the blocks that help" in page
    assert "excess, smoothed" in page


def test_benefits_of_a_run_under_way_and_of_several_runs(fedtlu: Command, text: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        simulate(tiny(text, rounds=2, seed=seed, **RECORDED), tmp_path / f"run{seed}")
    both = json.loads(fedtlu("history", tmp_path / "run0", tmp_path / "run1", "--benefit", "--json").stdout)
    assert (both["runs"], both["rounds"]) == (2, 4)
    (tmp_path / "run1" / "summary.json").unlink()
    for line in ("SHA256SUMS", "report.html"):
        (tmp_path / "run1" / line).unlink()
    going = fedtlu("history", tmp_path / "run1", "--benefit")
    assert (going.code, going.stderr) == (0, "")
    other = tmp_path / "other"
    simulate(tiny(text, rounds=2, **{**RECORDED, "selection": {"keep": 2}}), other)
    differ = fedtlu("history", tmp_path / "run0", other, "--benefit")
    assert (differ.code, differ.stdout) == (2, "")
    assert "the same groups and the same selection.keep" in differ.stderr
    (tmp_path / "link").symlink_to(tmp_path / "run0")
    twice = fedtlu("history", tmp_path / "run0", tmp_path / "link", "--benefit")
    assert (twice.code, twice.stdout) == (2, "")
    assert "every run once" in twice.stderr


def test_benefits_of_a_comparison_are_those_of_its_runs(fedtlu: Command, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "all"
    compare(tiny(text, rounds=2, **RECORDED), ["fedtlu", "full"], [0], out)
    told = json.loads(fedtlu("history", out, "--benefit", "--json").stdout)
    assert (told["runs"], told["rounds"]) == (2, 4)
    twice = fedtlu("history", out, out / "full-seed0", "--benefit")
    assert (twice.code, twice.stdout) == (2, "")
    compare(tiny(text, rounds=2), ["full"], [0], tmp_path / "none")
    none = fedtlu("history", tmp_path / "none", "--benefit")
    assert (none.code, none.stdout) == (2, "")
    assert "evaluation.benefit=true" in none.stderr


def test_a_selector_that_ignores_keep_may_have_any(fedtlu: Command, text: Path, tmp_path: Path) -> None:
    chosen = {"selector": "full", "keep": 9}
    simulate(tiny(text, rounds=2, **RECORDED, selection=chosen), tmp_path / "run")
    done = fedtlu("history", tmp_path / "run", "--benefit", "--json")
    assert (done.code, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert list(told["keep"].values()) == [4]
    assert {row["share"]["value"] for row in told["scores"]} == {None}, "no choice is left"
    assert "Which scores find" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_recorded_but_every_change_was_refused(fedtlu: Command, text: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    simulate(tiny(text, rounds=2, **RECORDED, training={"lr": 1e30}), run)
    assert not any(row.get("benefit") for row in logged(run / "selection.jsonl"))
    done = fedtlu("history", run, "--benefit")
    assert (done.code, done.stdout) == (2, "")
    assert "its change was not refused" in done.stderr
    assert "evaluation.benefit=true" not in done.stderr


def test_a_metric_without_values_of_layers_is_said_to_have_none(
    fedtlu: Command, text: Path, tmp_path: Path
) -> None:
    simulate(tiny(text, rounds=2, warmup_rounds=0, selection={"metric": "votes"}), tmp_path / "run")
    done = fedtlu("history", tmp_path / "run")
    assert done.code == 0
    assert "votes has scores for blocks only" in done.stderr
    assert "one kind" not in done.stderr


def test_without_recorded_benefits_the_error_says_how_to_record(
    fedtlu: Command, text: Path, tmp_path: Path
) -> None:
    simulate(tiny(text, rounds=2), tmp_path / "run")
    done = fedtlu("history", tmp_path / "run", "--benefit")
    assert (done.code, done.stdout) == (2, "")
    for words in ("RUN_DIR", "evaluation.benefit=true", "evaluation.held_out=256"):
        assert words in done.stderr
    assert "Which scores find" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    drawn = fedtlu("history", tmp_path / "run", "--benefit", "--plot", tmp_path / "p.png")
    assert (drawn.code, drawn.stdout) == (2, "")
    assert "--plot" in drawn.stderr
