import errno
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.federations import left, snapshot, tiny

from fedtlu_fast import InputError, RunConfig, simulate
from fedtlu_fast.errors import FedtluError, InterruptedRunError
from fedtlu_fast.experiments import arm_pool as arm_pool_module
from fedtlu_fast.experiments import arm_runs
from fedtlu_fast.experiments.arms import Arm, plan_arms, run_arm
from fedtlu_fast.experiments.compare import compare
from fedtlu_fast.experiments.comparison_settings import comparison_settings
from fedtlu_fast.report.again import write_report
from fedtlu_fast.runs.results import ArmResult, read_arm, save_comparison
from fedtlu_fast.selection import as_selector
from fedtlu_fast.simulation.run import Run

SELECTORS, SEEDS = ("fedtlu", "random", "last", "full"), (0, 3)


@pytest.fixture(scope="module")
def config(text: Path) -> RunConfig:
    return tiny(text)


def bits(results: Sequence[ArmResult]) -> list[tuple[str, int, str]]:
    return [(result.selector, result.seed, result.summary["params_sha256"]) for result in results]


@pytest.mark.usefixtures("in_process")
def test_arms_are_the_runs_they_would_be_alone(config: RunConfig, tmp_path: Path) -> None:
    results = compare(config, SELECTORS, SEEDS, tmp_path / "out")
    assert [(r.selector, r.seed) for r in results] == [(s, seed) for seed in SEEDS for s in SELECTORS]
    for selector in SELECTORS:
        for seed in SEEDS:
            alone = tmp_path / f"{selector}-{seed}"
            selection = config.selection.model_copy(update={"selector": as_selector(selector)})
            simulate(config.model_copy(update={"selection": selection, "seed": seed}), alone)
            assert left(tmp_path / "out" / f"{selector}-seed{seed}") == left(alone)
    assert len({row[2] for row in bits(results)}) == len(results), "selectors and seeds differ"
    assert not (tmp_path / "out" / "warmup-seed0" / "summary.json").exists()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_any_number_of_shared_rounds_changes_nothing(text: Path, tmp_path: Path, warmup: int) -> None:
    config = tiny(text, warmup_rounds=warmup)
    found = compare(config, ("random", "fedtlu"), (1,), tmp_path / "out")
    for result in found:
        selection = config.selection.model_copy(update={"selector": as_selector(result.selector)})
        alone = simulate(config.model_copy(update={"selection": selection, "seed": 1}))
        assert alone.summary["params_sha256"] == result.summary["params_sha256"]
        assert len(result.metrics) == 5


def test_warmup_is_planned_once_for_a_seed_and_not_for_a_single_arm(
    config: RunConfig, tmp_path: Path
) -> None:
    warmups, arms = plan_arms(config, ("fedtlu", "full"), (0, 1), tmp_path)
    assert [arm.name for arm in warmups] == ["warmup-seed0", "warmup-seed1"]
    assert {arm.until for arm in warmups} == {2}
    assert [arm.warmup for arm in arms] == [tmp_path / f"warmup-seed{seed}" for seed in (0, 0, 1, 1)]
    assert plan_arms(config, ("fedtlu",), (0, 1), tmp_path)[0] == []


@pytest.mark.usefixtures("in_process")
def test_resumed_comparison_runs_only_what_is_missing(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    whole = compare(config, ("fedtlu", "last"), (0,), out)
    shutil.rmtree(out / "last-seed0")
    before = snapshot(out / "fedtlu-seed0")
    rounds: list[int] = []
    one_round = Run._round

    def counted(self: Run) -> dict[str, Any]:
        rounds.append(self.state.round + 1)
        return one_round(self)

    monkeypatch.setattr(Run, "_round", counted)
    again = compare(config, ("fedtlu", "last"), (0,), out, resume=True)
    assert bits(again) == bits(whole)
    assert rounds == [3, 4, 5], "only last's own rounds, after the warm-up that is there"
    assert snapshot(out / "fedtlu-seed0") == before


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("kill_at", [1, 2, 3, 5, 7])
def test_comparison_killed_in_any_arm_goes_on_to_the_same_bits(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    whole = compare(config, ("fedtlu", "random"), (0,), tmp_path / "whole")
    one_round, done = Run._round, 0

    class Killed(BaseException):
        pass

    def killed(self: Run) -> dict[str, Any]:
        nonlocal done
        done += 1
        if done == kill_at:
            raise Killed
        return one_round(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_round", killed)
        with pytest.raises(Killed):
            compare(config, ("fedtlu", "random"), (0,), tmp_path / "out")
    found = compare(config, ("fedtlu", "random"), (0,), tmp_path / "out", resume=True)
    assert bits(found) == bits(whole)
    for name in ("fedtlu-seed0", "random-seed0"):
        assert left(tmp_path / "out" / name) == left(tmp_path / "whole" / name)


@pytest.mark.usefixtures("in_process")
def test_arm_killed_while_it_takes_over_the_warmup_takes_it_over_again(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmups, arms = plan_arms(config, ("fedtlu", "random"), (0,), tmp_path)
    run_arm(warmups[0])

    class Killed(BaseException):
        pass

    def killed(self: Run) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", killed)
        with pytest.raises(Killed):
            run_arm(arms[0])
    run_arm(arms[0])
    selection = config.selection.model_copy(update={"selector": as_selector("fedtlu")})
    simulate(config.model_copy(update={"selection": selection}), tmp_path / "alone")
    assert left(arms[0].path) == left(tmp_path / "alone")


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("selectors", "seeds", "words"),
    [
        (("fedtlu", "best"), (0,), "best"),
        (("last", "last"), (0,), "selectors: got"),
        ((), (0,), "selectors: got"),
        (("last",), (1, 1), "seeds: got"),
        (("last",), (), "seeds: got"),
    ],
)
def test_bad_arms_are_refused_and_nothing_is_written(
    config: RunConfig, tmp_path: Path, selectors: tuple[str, ...], seeds: tuple[int, ...], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        compare(config, selectors, seeds, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("in_process")
def test_arms_with_other_held_out_samples_are_refused(text: Path, tmp_path: Path) -> None:
    arms = ["random", "oracle+evaluation.held_out=4"]
    message = r"selectors: got 'oracle\+evaluation.held_out=4'; expected evaluation.held_out=0 as in random"
    with pytest.raises(InputError, match=message):
        compare(tiny(text), arms, [0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_that_do_not_fit_are_refused_before_the_warmup(text: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keep"):
        compare(tiny(text, selection={"keep": 9}), ("full", "fedtlu"), (0,), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("in_process")
def test_resume_with_other_settings_selectors_or_seeds_is_refused(
    config: RunConfig, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    compare(config, ("fedtlu", "last"), (0,), out)
    assert comparison_settings(out) == (config, ("fedtlu", "last"), (0,))
    before = snapshot(out)
    for other, selectors, seeds in (
        (tiny(text, rounds=6), ("fedtlu", "last"), (0,)),
        (config, ("fedtlu",), (0,)),
        (config, ("fedtlu", "last"), (0, 1)),
    ):
        with pytest.raises(InputError, match="out: got"):
            compare(other, selectors, seeds, out, resume=True)
    with pytest.raises(InputError, match="another run"):
        compare(config, ("fedtlu", "last"), (0,), out)
    with pytest.raises(InputError, match="comparison"):
        simulate(config, out, resume=True)
    assert snapshot(out) == before
    (out / "comparison.yaml").write_text("selectors: 3")
    with pytest.raises(InputError, match=r"comparison\.yaml"):
        comparison_settings(out)


@pytest.mark.usefixtures("in_process")
def test_interrupt_says_how_to_resume(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_round = Run._round

    def press(self: Run) -> dict[str, Any]:
        if self.state.round == 3:
            raise KeyboardInterrupt
        return one_round(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_round", press)
        with pytest.raises(InterruptedRunError, match="the same call and resume=True"):
            compare(config, ("fedtlu", "last"), (0,), tmp_path / "out")
    found = compare(config, ("fedtlu", "last"), (0,), tmp_path / "out", resume=True)
    assert [len(result.metrics) for result in found] == [5, 5]


def test_arms_that_were_handed_out_do_not_begin_after_the_end(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (arm, *_) = plan_arms(config, ("last",), (0,), tmp_path / "out")
    ended = threading.Event()
    ended.set()
    monkeypatch.setattr(arm_pool_module, "_ended", ended)
    run_arm(arm)
    assert not arm.path.exists()


@pytest.mark.usefixtures("in_process")
def test_error_of_an_arm_comes_out_as_it_is(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise FedtluError("the arm failed")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "finish", fail)
        with pytest.raises(FedtluError, match="the arm failed"):
            compare(config, ("fedtlu",), (0,), tmp_path / "out")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EROFS, "Read-only file system"), r"/dev/shm.*Read-only.*Mount it for writing"),
        (OSError(errno.ENOSPC, "No space left on device"), r"/dev/shm.*No space left"),
        (OSError(errno.EMFILE, "Too many open files"), r"open files \(ulimit -n\)"),
        (BlockingIOError(errno.EAGAIN, "try again"), r"processes and threads.*ulimit -u"),
        (RuntimeError("can't start new thread"), r"processes and threads.*ulimit -u"),
        (NotImplementedError("no semaphores here"), r"no semaphores here"),
    ],
)
def test_processes_that_cannot_be_started_are_one_message(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def refuse(*args: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(arm_pool_module, "ProcessPoolExecutor", refuse)
    with pytest.raises(
        FedtluError, match=f"processes for the arms cannot be started: .*{words}.*resume=True"
    ):
        compare(config, SELECTORS, (0,), tmp_path / "out")
    assert comparison_settings(tmp_path / "out")[1] == SELECTORS, "and it can be resumed"


def _die(arm: Arm) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_processes_give_the_same_bits(config: RunConfig, tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    def progress(arm: Arm, done: int) -> None:
        seen[arm.name] = done

    found = compare(config, ("fedtlu", "last"), (0,), tmp_path / "two", jobs=2, progress=progress)
    assert seen == {"warmup-seed0": 2, "fedtlu-seed0": 5, "last-seed0": 5}
    for result in found:
        selection = config.selection.model_copy(update={"selector": as_selector(result.selector)})
        simulate(config.model_copy(update={"selection": selection}), tmp_path / result.selector)
        assert left(tmp_path / "two" / f"{result.selector}-seed0") == left(tmp_path / result.selector)
        assert read_arm(tmp_path / "two" / f"{result.selector}-seed0") == result


@pytest.mark.slow
def test_a_killed_process_is_a_clear_error_and_another_gives_the_same_bits(
    config: RunConfig, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arm_runs, "run_arm", _die)
        with pytest.raises(FedtluError, match=r"worker process was killed.*resume=True"):
            compare(config, ("fedtlu", "last"), (0,), tmp_path / "killed", jobs=1)
    for result in compare(config, ("fedtlu", "last"), (0,), tmp_path / "killed", jobs=1, resume=True):
        selection = config.selection.model_copy(update={"selector": as_selector(result.selector)})
        simulate(config.model_copy(update={"selection": selection}), tmp_path / result.selector)
        assert left(tmp_path / "killed" / f"{result.selector}-seed0") == left(tmp_path / result.selector)


@pytest.mark.usefixtures("in_process")
def test_saved_comparison_is_json_that_every_reader_takes(config: RunConfig, tmp_path: Path) -> None:
    results = compare(config, ("last",), (0,), tmp_path / "out")
    save_comparison(tmp_path / "out", [{"selector": "last", "gain": float("nan")}], results, "So it is.")
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["table"] == [{"selector": "last", "gain": None}]
    assert found["conclusion"] == "So it is."
    assert found["runs"] == [results[0].summary]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("summary.json", lambda data: data[:9]),
        ("summary.json", lambda data: data.replace(b'"bytes_up": ', b'"bytes_up": 7', 1)),
        ("SHA256SUMS", lambda data: data[1:]),
        ("SHA256SUMS", lambda data: b""),
    ],
)
def test_damaged_end_of_an_arm_is_warned_of_and_made_anew(
    config: RunConfig,
    tmp_path: Path,
    name: str,
    change: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    whole = compare(config, ("last",), (0,), out)
    file = out / "last-seed0" / name
    before = file.read_bytes()
    file.write_bytes(change(before))
    with pytest.raises(InputError, match="a run as it was written"):
        read_arm(file.parent)
    assert compare(config, ("last",), (0,), out, resume=True) == whole
    assert "the end of this run is made anew" in caplog.text
    assert file.read_bytes() == before


@pytest.mark.usefixtures("in_process")
def test_changed_number_in_an_arms_log_is_one_message(config: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    compare(config, ("last",), (0,), out)
    file = out / "last-seed0" / "metrics.jsonl"
    file.write_text(file.read_text().replace('"bytes_up": ', '"bytes_up": 7', 1))
    before = snapshot(out)
    with pytest.raises(InputError, match=r"metrics\.jsonl was changed in its first 5 lines"):
        compare(config, ("last",), (0,), out, resume=True)
    assert snapshot(out) == before


@pytest.mark.usefixtures("in_process")
def test_arms_of_own_selectors_lie_in_directories_of_any_system_and_old_ones_are_found(
    text: Path, tmp_path: Path
) -> None:
    keen, out = "support.own_selectors:Keen:2", tmp_path / "out"
    config = tiny(text, rounds=2, warmup_rounds=0)
    (arm,) = compare(config, (keen,), (0,), out, jobs=1)
    assert arm.selector == keen
    new, old = out / "support.own_selectors.Keen.2-seed0", out / f"{keen}-seed0"
    before = snapshot(new)
    new.rename(old)  # as earlier versions named it
    write_report(out)
    assert (out / "report.html").exists()
    (again,) = compare(config, (keen,), (0,), out, jobs=1, resume=True)
    assert (again, snapshot(old), new.exists()) == (arm, before, False)
    with pytest.raises(InputError, match=r"selectors: .*names that differ"):
        compare(config, ("top@1+always=h*", "top@1+always=h?"), (0,), tmp_path / "other", jobs=1)
