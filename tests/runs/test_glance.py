import json
from pathlib import Path

import pytest
from support.run_folders import (
    append,
    begun_comparison,
    begun_experiment,
    begun_run,
    finished_run,
    killed,
    row,
    settings_text,
)

from fedtlu_fast.runs import standing as module
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.runs.followed import FollowedRun
from fedtlu_fast.runs.glance import arms_in, glance
from fedtlu_fast.runs.lock import Holder


def test_a_run_at_a_glance_in_every_state(tmp_path: Path) -> None:
    finished = glance(finished_run(tmp_path / "a", run_name="mine"))
    assert (finished.state, finished.done, finished.asked) == ("finished", 4, 4)
    assert (finished.name, finished.task, finished.selector) == ("mine", "language_modelling", "fedtlu")
    assert str(finished.figure) == "perplexity 25"
    stopped = glance(begun_run(tmp_path / "20260101-000000-b", done=2))
    assert (stopped.state, stopped.done, stopped.name) == ("stopped", 2, "b")
    assert str(stopped.figure) == "perplexity 50"
    assert glance(killed(begun_run(tmp_path / "c", done=1))).state == "killed"
    (tmp_path / "d").mkdir()
    assert (glance(tmp_path / "d").state, glance(tmp_path / "d").kind) == ("not begun", None)
    running = RunDirectory.create(tmp_path / "e", settings_text())
    assert glance(tmp_path / "e").state == "running"
    running.close()
    assert glance(tmp_path / "e").state == "stopped"


def test_a_run_whose_lock_was_emptied_has_stopped_and_one_that_was_not_was_killed(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "a", settings_text())
    said = json.loads((tmp_path / "a" / ".lock").read_text())
    assert said.keys() == {"pid", "host", "began"}
    directory.close()
    assert (tmp_path / "a" / ".lock").read_text() == ""


def test_on_another_machine_silence_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = killed(begun_run(tmp_path / "a"))
    monkeypatch.setattr(module, "holder_of", lambda _: Holder(1, "elsewhere", 1.0, None))
    assert glance(path).state == "running"
    monkeypatch.setattr(module, "SILENT_SECONDS", -1)
    assert glance(path).state == "killed"


@pytest.mark.parametrize("text", ["a: [", "- 1", "task: x\n"])
def test_what_cannot_be_read_is_said(tmp_path: Path, text: str) -> None:
    path = begun_run(tmp_path / "a")
    (path / "config.yaml").write_text(text)
    found = glance(path)
    assert found.state == "unreadable"
    assert found.problem


@pytest.mark.parametrize("plan", ["conditions: {}", "conditions: []", "a: 1", "3"])
def test_what_cannot_be_read_of_an_experiment_is_said(tmp_path: Path, plan: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "experiment.yaml").write_text(plan)
    assert glance(tmp_path / "a").state == "unreadable"


def test_a_comparison_counts_its_runs_and_shows_its_best(tmp_path: Path) -> None:
    path = begun_comparison(tmp_path / "a", ["fedtlu", "full"])
    assert [arm.name for arm in arms_in(path)] == ["warmup-seed0", "fedtlu-seed0", "full-seed0"]
    assert arms_in(path)[0].until == 1
    assert (glance(path).state, glance(path).done, glance(path).asked) == ("stopped", 0, 2)
    finished_run(path / "full-seed0", rounds=2)
    assert glance(path).done == 1
    finished_run(path / "fedtlu-seed0", rounds=4)
    found = glance(path)
    assert (found.state, found.done, found.best, str(found.figure)) == (
        "finished",
        2,
        "fedtlu",
        "perplexity 25",
    )


def test_a_comparison_lives_as_long_as_one_of_its_locks(tmp_path: Path) -> None:
    path = begun_comparison(tmp_path / "a", ["fedtlu", "full"])
    killed(path)
    assert glance(path).state == "killed"
    directory = RunDirectory(path)
    directory.lock()
    assert glance(path).state == "running"
    directory.close()


def test_an_experiment_counts_the_runs_of_all_its_comparisons(tmp_path: Path) -> None:
    path = begun_experiment(tmp_path / "a")
    assert (glance(path).kind, glance(path).asked, glance(path).seeds) == ("experiment", 4, (0, 1))
    finished_run(path / "fedavg-clean" / "full-seed1")
    assert glance(path).done == 1


def test_a_run_is_followed_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a"
    run = FollowedRun(path, "a")
    assert run.look() == []
    assert (run.state, run.rounds, run.done, run.seconds_left) == ("not begun", 0, 0, None)
    directory = RunDirectory.create(path, settings_text())
    assert run.look() == []
    assert (run.state, run.rounds, run.choosable()) == ("running", 4, [])
    append(path, row(1), row(2))
    assert [one["round"] for one in run.look()] == [1, 2]
    assert run.seconds_left == pytest.approx(0.5)
    # After one targeted round the embedding and the head could still be chosen blocks; their names differ.
    assert run.choosable() == ["model.h.0", "model.h.1"]
    append(path, row(3, refused=[5], failed={"7": "its file is gone"}, kept_clients=[]))
    run.look()
    assert run.faults() == {
        "failed clients": "1; client 7 last: its file is gone",
        "refused updates": "1; client 5 last",
        "rounds that changed nothing": "1; too few clients for the rule, last in 3",
    }
    directory.close()
    run.look()
    assert (run.state, run.seconds_left) == ("stopped", None)
    # Resumed from round 1, with more rounds.
    directory.lock()
    directory.rewind(1)
    directory.change_settings(settings_text(rounds=9))
    assert [one["round"] for one in run.look()] == [1]
    assert (len(run.rows), run.done, run.rounds) == (1, 1, 9)
    directory.close()
