"""Trackers get the numbers of every round once, the settings and the summary, also over a kill."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.federations import rows, tiny
from support.own_trackers import Failing, Refusing, ToFile
from support.tracking import killed_and_resumed, numbers

from fedtlu_fast import Callback, InputError, extras, simulate
from fedtlu_fast.cli.main import main
from fedtlu_fast.integrations.trackers import Print, TensorBoard, Track
from fedtlu_fast.integrations.trackers.kept import FILE, Kept, read_kept, write_kept
from fedtlu_fast.integrations.trackers.numbers import of_round, of_summary
from fedtlu_fast.simulation.run_context import RunContext

METHODS = ("check", "start", "memory", "log", "finish")
OWN = "support.own_trackers:ToFile"


class Halve(Callback):
    def on_round_end(self, run: RunContext) -> None:
        run.log(half=run.round / 2)


def steps(told: list[dict[str, Any]]) -> list[int]:
    return [line["step"] for line in told if "step" in line]


def test_a_run_is_told_once_with_its_settings_and_what_other_callbacks_log(
    text: Path, tmp_path: Path
) -> None:
    config = tiny(text, rounds=3)
    result = simulate(config, tmp_path / "out", callbacks=[Halve(), Track(ToFile(str(tmp_path / "told")))])
    begun, *logged, end = rows(tmp_path / "told" / "out.jsonl")
    assert begun["settings"]["training.lr"] == 0.5
    assert begun["settings"]["selection.selector"] == "fedtlu"
    assert (begun["start"], begun["memory"], begun["group"]) == (0, {}, None)
    assert [line["row"] for line in logged] == [
        of_round(row, choice) for row, choice in zip(result.metrics, result.selection, strict=True)
    ]
    assert [line["row"]["half"] for line in logged] == [0.5, 1.0, 1.5]
    assert end["summary"]["test_loss"] == result.summary["test_loss"]


def test_a_killed_run_goes_on_with_the_same_record(text: Path, tmp_path: Path) -> None:
    result = killed_and_resumed(tiny(text), tmp_path / "out", f"{OWN}:{tmp_path / 'told'}")
    told = rows(tmp_path / "told" / "out.jsonl")
    assert steps(told) == [1, 2, 3, 3, 4, 5]
    assert [list(line) for line in told[3:6]] == [["step", "row"], ["closed"], list(told[0])]
    assert sum("closed" in line for line in told) == 1, "a finished record is closed by its summary"
    first, second = (line for line in told if "start" in line)
    assert (first["start"], first["memory"]) == (0, {})
    assert (second["start"], second["memory"]) == (2, {"path": str(tmp_path / "told" / "out.jsonl")})
    kept = json.loads((tmp_path / "out" / FILE).read_text())
    assert [own["logged"] for key, own in kept.items() if key != "sha256"] == [5]
    assert numbers(result).keys() >= {"test_loss", "summary/test_loss", "score/transformer.h.0"}


def test_a_tracker_that_comes_later_is_told_of_the_rounds_before(text: Path, tmp_path: Path) -> None:
    tracker = ToFile(str(tmp_path / "told"))
    simulate(tiny(text, rounds=2), tmp_path / "out", callbacks=[Track(tracker)])
    simulate(tiny(text, rounds=4, warmup_rounds=1), tmp_path / "out", resume=True)
    simulate(tiny(text, rounds=5, warmup_rounds=1), tmp_path / "out", resume=True, callbacks=[Track(tracker)])
    assert steps(rows(tmp_path / "told" / "out.jsonl")) == [1, 2, 3, 4, 5]
    other = ToFile(str(tmp_path / "other"))  # with other parameters it is new to the run
    simulate(tiny(text, rounds=5, warmup_rounds=1), tmp_path / "out", resume=True, callbacks=[Track(other)])
    assert steps(rows(tmp_path / "other" / "out.jsonl")) == [1, 2, 3, 4, 5]


def test_numbers_of_a_round() -> None:
    row = {
        "round": 3,
        "test_loss": None,
        "loss": 2,
        "warmup": True,
        "refused": [4, 7],
        "failed": {},
        "a": "b",
    }
    choice = {
        "block_scores": {"a": 1.5, "b": None},
        "selected": ["b"],
        "client_blocks": [[0], [0, 1], [], [0]],
    }
    assert of_round(row, choice) == {
        "loss": 2.0,
        "warmup": 1.0,
        "refused": 2.0,
        "failed": 0.0,
        "score/a": 1.5,
        "selected/a": 0.0,
        "selected/b": 1.0,
        "trained/a": 0.75,
        "trained/b": 0.25,
    }
    summary = {
        "loss": 2,
        "stopped": None,
        "best": {"round": 3},
        "name": "x",
        "flag": True,
        "nan": float("nan"),
    }
    assert of_summary(summary) == {"loss": 2.0, "best/round": 3.0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tensorbord", r"^tracker: got 'tensorbord'. Did you mean tensorboard"),
        ("print:3", r"tracker: got 'print:3'; expected print without a value"),
        (TensorBoard, r"tracker: .*Write TensorBoard\(\.\.\.\)"),
        ("fedtlu_fast.aggregation:Krum", r"expected one of tensorboard, .* subclass of .*Tracker"),
        (Refusing("x"), r"^folder: got 'x'; expected another folder"),
    ],
)
def test_what_is_no_tracker_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Track(given)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_missing_package_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=rf"^tracker: got '{name}'; .*pip install 'fedtlu-fast\[{name}\]'"):
        Track(name)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        *((at, rf"it raised ValueError: 'wrong in {at}' \(.*own_trackers\.py:\d+\)") for at in METHODS),
        ("none", "what start returned: got None; expected an OpenTracker"),
        ("number", r"memory: got {'number': 5}; expected a mapping from text to text"),
    ],
)
def test_what_an_own_tracker_does_wrong_is_named(
    text: Path, tmp_path: Path, at: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InputError, match=f"^tracker.*{message}"):
        simulate(tiny(text, rounds=1), tmp_path / "out", callbacks=[Track(Failing(str(tmp_path), at))])
    # The error that ended the run is told, and not the one that follows from it.
    closed = at in ("log", "finish", "memory", "number")
    assert ("did not close its record: ValueError: 'wrong in close'" in caplog.text) == closed


def test_what_trackers_remember_is_checked(tmp_path: Path) -> None:
    write_kept(tmp_path, "one", Kept(3, {"id": "x"}))
    write_kept(tmp_path, "two", Kept(4))
    assert read_kept(tmp_path, "one") == Kept(3, {"id": "x"})
    assert read_kept(tmp_path, "three") == Kept()
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace('"x"', '"y"'))
    with pytest.raises(InputError, match="Remove the file"):
        read_kept(tmp_path, "one")


def test_printing(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = simulate(tiny(text, rounds=2), callbacks=[Track("print")])
    first, second, summary = capsys.readouterr().err.splitlines()
    assert first.startswith("fedtlu-seed0: round 1, train_loss ")
    blocks = " ".join(result.metrics[1]["selected"])
    assert f"updated {blocks}, {result.metrics[1]['seconds']:.2f} s" in second
    assert f"test_loss {result.summary['test_loss']:.4g}" in summary
    assert Print() == Print()


@pytest.mark.usefixtures("in_process")
def test_arms_of_a_comparison_have_records_of_their_own(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(tiny(text, rounds=3, warmup_rounds=1).to_yaml())
    command = ["fedtlu", "compare", "--config", str(tmp_path / "mine.yaml"), "--selectors", "fedtlu,random"]
    command += ["--seeds", "1", "--out", str(tmp_path / "out"), "--track", f"{OWN}:{tmp_path / 'told'}", "-q"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None), capsys.readouterr().err
    assert sorted(path.stem for path in (tmp_path / "told").iterdir()) == ["fedtlu-seed0", "random-seed0"]
    for name in ("fedtlu-seed0", "random-seed0"):
        told = rows(tmp_path / "told" / f"{name}.jsonl")
        assert told[0]["group"] == "out"
        assert steps(told) == [1, 2, 3], "the rounds of the shared warm-up are among them"
        assert "summary" in told[-1]


def test_the_command_says_what_is_missing_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedtlu", "run", "--preset", "smoke", "--track", "nosuch"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--track: got 'nosuch'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
