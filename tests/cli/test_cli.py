import errno
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from support.federations import WORDS, left, rows, snapshot, timeless, tree, write_text
from support.treebanks import write_treebank
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from fedtlu_fast.cli import compare_default
from fedtlu_fast.cli.round_line import status
from fedtlu_fast.errors import ClientError
from fedtlu_fast.shown import short_names

Command = Callable[..., Any]


def settings_file(path: Path, text: Path, **over: Any) -> Path:
    path.write_text(yaml.safe_dump(tree(text, **over)))
    return path


@pytest.fixture
def tiny_file(tmp_path: Path, text: Path) -> Path:
    return settings_file(tmp_path / "tiny.yaml", text)


READ = "test: a share of the training data, since there is none of its own (data.test_fraction)"


def lines_of(done: Any) -> list[str]:
    """Returns the lines on stderr except where the run is, and about the data (earlier tests decide that)."""
    lines = [line for line in done.stderr.splitlines() if line.strip() and line != READ]
    return [line for line in lines if not line.startswith("Run: ")]


def one_message(done: Any, *words: str) -> None:
    """Checks for exit code 2, nothing on stdout, and one line on stderr with all of these words.

    Lines that say where the run is, and about the data, may come before it.
    """
    assert done.code == 2, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = lines_of(done)
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"


COMMANDS = (
    *("run", "compare", "experiment", "data", "score", "history"),
    *("profile", "bench-sim", "settings", "env", "watch", "runs", "report", "export"),
)


def test_help_teaches_the_commands(fedtlu: Command) -> None:
    done = fedtlu("--help")
    assert done.code == 0
    for example in ("run --preset smoke", "compare", "settings", "score BEFORE AFTER"):
        assert f"fedtlu {example}" in done.stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z]", done.stdout, re.MULTILINE), f"{command} is not listed"
        help_ = fedtlu(command, "-h").stdout
        assert f"Usage: fedtlu {command}" in help_
        assert max(map(len, help_.splitlines())) <= 80
    assert "resume a run" in fedtlu("run", "--help").stdout.lower()
    assert fedtlu("-h").stdout == done.stdout
    help_ = "".join(fedtlu("compare", "--help").stdout.split())
    for default in (compare_default.SELECTORS, compare_default.PRESET, f"{compare_default.SEEDS})"):
        assert f"(default:{default}" in help_


def test_version_and_unknown_commands(fedtlu: Command) -> None:
    assert fedtlu("--version").stdout.startswith("fedtlu-fast ")
    assert fedtlu("rum").code == 2
    assert fedtlu("run", "--roundz", 3).code == 2
    assert fedtlu("run", "--rounds", "many").code == 2


def test_run_json_is_the_summary_and_nothing_else(fedtlu: Command, tiny_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = fedtlu("run", "--config", tiny_file, "--out", out, "--json")
    assert done.code == 0
    summary = json.loads(done.stdout)
    assert done.stdout == (out / "summary.json").read_text()
    assert {"rounds", "test_perplexity", "local_perplexity", "seconds", "params_sha256"} <= summary.keys()
    assert summary["data"]["said"] == READ
    assert summary["data"]["train"]["names"] == ["text.txt"]
    assert summary["data"]["test"]["share"] == 0.1
    # Not a terminal: where the run is, no progress, one closing remark.
    assert done.stderr.startswith(f"Run: {out}   To watch it from elsewhere: fedtlu watch {out}\n")
    assert lines_of(done) == [f"Files in {out} (report.html first)"]
    again = fedtlu("run", "--config", tiny_file, "--json", "--quiet")
    assert timeless([json.loads(again.stdout)]) == timeless([summary])
    assert again.stderr == ""


@pytest.mark.draws
def test_run_leaves_the_files_it_promises_in_a_new_directory_of_runs(
    fedtlu: Command, tiny_file: Path
) -> None:
    assert fedtlu("run", "--config", tiny_file, "--seed", 3).code == 0
    (out,) = Path("runs").iterdir()
    assert out.name.endswith("-fedtlu-seed3")
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "metrics.jsonl",
        "selection.jsonl",
        "summary.json",
        "report.html",
        "plots/curves.png",
        "plots/selection.png",
        "checkpoints/round-000005/model.safetensors",
        "checkpoints/round-000005/state.json",
    } <= names
    row = rows(out / "metrics.jsonl")[0]
    assert {"round", "train_loss", "test_loss", "test_perplexity", "selected", "seconds"} <= row.keys()
    # The settings a run leaves are complete: with them alone it runs again to the same bits.
    done = fedtlu("run", "--config", out / "config.yaml", "--json", "-q")
    assert (
        json.loads(done.stdout)["params_sha256"]
        == json.loads((out / "summary.json").read_text())["params_sha256"]
    )


def test_run_a_tagging(fedtlu: Command, tmp_path: Path) -> None:
    bank, out = write_treebank(tmp_path / "bank"), tmp_path / "out"
    fast = ["--rounds", 2, "--clients", 4, "--set", "cohort=2", "--set", "local_steps=2", "--set", "layers=2"]
    done = fedtlu("run", "--task", "tagging", "--data", f"udpos:{bank}", "--out", out, "-q", *fast)
    assert done.code == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["task"] == "tagging"
    for name in ("test_accuracy", "local_accuracy"):
        assert f"{100 * summary[name]:.2f}%" in done.stdout
    assert f"{summary['test_macro_f1']:.4f}" in done.stdout
    one_message(fedtlu("run", "--task", "tagging", "--data", "pydoc"), "task", "'tagging'", "pydoc")
    one_message(fedtlu("run", "--task", "tags"), "task", "'tags'", "language_modelling")
    (bank / "tiny-ud-test.conllu").write_text("1\tone\n")
    broken = fedtlu("run", "--task", "tagging", "--data", f"udpos:{bank}", "--out", tmp_path / "new")
    one_message(broken, "tiny-ud-test.conllu:1", "10 columns", "there are 2")


def test_run_table_names_what_matters(fedtlu: Command, tiny_file: Path) -> None:
    shown = fedtlu("run", "--config", tiny_file, "-q").stdout
    summary = json.loads(next(Path("runs").glob("*/summary.json")).read_text())
    assert summary["params_sha256"] in shown, "a digest that is broken over lines cannot be compared"
    assert f"{summary['test_perplexity']:.2f}" in shown
    assert f"{summary['local_perplexity']:.2f}" in shown
    assert "5 (2 warm-up, 3 targeted)" in shown


def test_options_win_over_set_which_wins_over_the_file(fedtlu: Command, tiny_file: Path) -> None:
    done = fedtlu(
        "run", "--config", tiny_file, "--set", "rounds=4", "--set", "lr=0.25", "--rounds", 3, "--json", "-q"
    )
    assert json.loads(done.stdout)["rounds"] == 3
    config = yaml.safe_load(next(Path("runs").glob("*/config.yaml")).read_text())
    assert config["rounds"] == 3
    assert config["training"]["lr"] == 0.25
    assert config["training"]["batch_size"] == 4


@pytest.mark.parametrize("name", ["with # hash.txt", "a: b.txt", "{x}.txt", "[bold]x.txt", "naïve é.txt"])
def test_paths_are_taken_as_they_are(fedtlu: Command, tiny_file: Path, tmp_path: Path, name: str) -> None:
    file = write_text(tmp_path / name)
    done = fedtlu(
        "run", "--config", tiny_file, "--rounds", 1, "--data", f"text:{file}", "--out", tmp_path / f"o {name}"
    )
    assert done.code == 0, done.stderr
    assert lines_of(done) == [f"Files in {tmp_path / f'o {name}'} (report.html first)"]
    missing = fedtlu("run", "--config", tiny_file, "--data", f"text:{file}.gone")
    one_message(missing, "data.source", f"{file}.gone")


def test_progress_line_names_only_blocks_that_were_chosen() -> None:
    row = {
        "test_perplexity": 12.34,
        "train_loss": 1.5,
        "warmup": False,
        "refused": [3],
        "dropped": {"4": "no answer", "9": "too late"},
        "kept_clients": None,
        "nonfinite_blocks": [],
        "selected": ["t.wte", *(f"t.h.{i}" for i in range(6))],
    }
    names = [f"t.h.{i}" for i in range(6)]
    line = status(row, dict(zip(names, short_names(names), strict=True)))
    assert line == "loss 1.500  perplexity 12.3  h.0 h.1 h.2 h.3 +2  refused 1  dropped 2"
    assert "warm-up: all" in status({**row, "warmup": True}, {})
    own = status({**row, "test_perplexity": None, "test_loss": 2.0, "test_rouge_l": 0.25}, {})
    assert own == "loss 1.500  rouge_l 0.25  refused 1  dropped 2"
    nothing = {"train_loss": None, "test_perplexity": None, "selected": [], "refused": [], "dropped": {}}
    nothing |= {"warmup": False, "kept_clients": None, "nonfinite_blocks": []}
    assert status(nothing, {}) == ""
    for warmup in (False, True):
        too_few = {**nothing, "warmup": warmup, "kept_clients": []}
        assert status(too_few, {}) == "too few clients for the rule: nothing changed"


BAD_SETTINGS = {
    "unknown key": (["--set", "training.learning_rate=1"], ["training.learning_rate", "unknown"]),
    "unknown key, near": (["--set", "training.lrr=1"], ["training.lrr", "Did you mean training.lr?"]),
    "wrong type": (["--set", "rounds=many"], ["rounds", "'many'", "integer"]),
    "list": (["--set", "rounds=[1, 2]"], ["rounds", "[1, 2]"]),
    "no value": (["--set", "rounds"], ["--set", "'rounds'", "key=value"]),
    "no key": (["--set", "=3"], ["--set", "key=value"]),
    "broken YAML": (["--set", "rounds=[1"], ["--set", "YAML"]),
    "ambiguous": (["--set", "every=3"], ["every", "evaluation.every", "checkpoint.every"]),
    "zero rounds": (["--rounds", "0"], ["rounds", "0", "greater than or equal to 1"]),
    "negative seed": (["--seed", "-1"], ["seed", "-1"]),
    "keep": (["--set", "keep=4"], ["selection.keep", "4", "at most 3"]),
    "keep nothing": (["--set", "keep=0"], ["selection.keep", "0", "1 block or more"]),
    "cohort": (["--set", "cohort=5"], ["cohort: got 5", "at most 4, the number of clients"]),
    "alpha zero": (["--partition", "dirichlet:0"], ["partition.alpha", "greater than 0"]),
    "alpha negative": (["--partition", "dirichlet:-1"], ["partition.alpha", "-1", "greater than 0"]),
    "alpha no number": (["--partition", "dirichlet:x"], ["partition.alpha", "'x'", "number"]),
    "partition": (
        ["--partition", "sorted"],
        ["partition.name", "'sorted'", "iid, dirichlet, "],
    ),
    "selector": (["--selector", "best"], ["selector", "best", "fedtlu, random, last, first, full"]),
    "heads": (["--set", "heads=3"], ["model.heads: got 3", "width, 8"]),
    "nan": (["--set", "lr=.nan"], ["training.lr", "finite"]),
    "preset": (["--preset", "fast"], ["preset", "'fast'", "quickstart", "smoke"]),
    "backend": (["--backend", "cuda"], ["backend", "'cuda'", "native"]),
    "device": (["--device", "gpu"], ["device", "'gpu'", "cuda"]),
    "source": (["--data", "wiki"], ["data.source", "'wiki'", "text:PATH"]),
    "no such text": (["--data", "text:nowhere"], ["data.source", "text:nowhere", "exists"]),
    "too many clients": (["--clients", "5000"], ["data.source", "20000 samples", "fewer clients"]),
    "window too long": (["--set", "window=5000"], ["data.source", "shorter window"]),
    "model": (["--model", "."], ["model.pretrained", "a directory of a model"]),
}


@pytest.mark.parametrize(("arguments", "words"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys())
@pytest.mark.parametrize("command", ["run", "compare"])
def test_bad_settings_are_one_message_and_nothing_is_written(
    fedtlu: Command, tiny_file: Path, tmp_path: Path, command: str, arguments: list[str], words: list[str]
) -> None:
    if command == "compare" and "--selector" in arguments:
        arguments = ["--selectors", "fedtlu,best"]
    before = snapshot(tmp_path)
    done = fedtlu(command, "--config", tiny_file, "--out", tmp_path / "out", *arguments)
    one_message(done, *words)
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "out").exists()
    assert not Path("runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_one_message(fedtlu: Command, tiny_file: Path) -> None:
    one_message(
        fedtlu("run", "--config", tiny_file, "--device", "cuda"), "device", "'cuda'", "no CUDA device"
    )


def test_backend_that_is_not_live_is_one_message(
    fedtlu: Command, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedtlu_fast.ops import backends

    monkeypatch.setattr(
        backends, "why_not", lambda name, device="cpu": "there is none" if name == "triton" else None
    )
    done = fedtlu("run", "--config", tiny_file, "--backend", "triton")
    one_message(done, "triton", "there is none", "Live here", "fedtlu env")


def test_config_file_that_is_none_is_one_message(fedtlu: Command, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    one_message(fedtlu("run", "--config", file), "config", str(file), "exists")
    contents = {"- 1\n- 2\n": "not list", "a: [1\n": "readable YAML", "text": "not str", "": "not NoneType"}
    for content, words in contents.items():
        file.write_text(content)
        one_message(fedtlu("run", "--config", file), "config", words)
    file.write_bytes(b"\xff\xfe\x00")
    one_message(fedtlu("run", "--config", file), "config", "readable YAML")
    one_message(fedtlu("run", "--config", tmp_path), "config")
    file.write_text("rouns: 3\n")
    one_message(fedtlu("run", "--config", file), "rouns", "Did you mean rounds?")


def test_text_that_is_not_utf8_is_named_with_its_byte(
    fedtlu: Command, tiny_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "latin1.txt"
    file.write_bytes(b"caf\xe9 " * 5000)
    one_message(
        fedtlu("run", "--config", tiny_file, "--data", f"text:{file}"), str(file), "UTF-8", "byte 3", "iconv"
    )


def test_empty_text_and_empty_directory_are_refused(fedtlu: Command, tiny_file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "empty").mkdir()
    for name in ("empty.txt", "empty"):
        one_message(
            fedtlu("run", "--config", tiny_file, "--data", f"text:{tmp_path / name}"), "data.source", name
        )


def test_hub_names_are_refused_when_there_is_no_hub(fedtlu: Command, tiny_file: Path) -> None:
    done = fedtlu("run", "--config", tiny_file, "--data", "hf:nobody/nothing-of-the-kind")
    one_message(done, "data.source", "hf:nobody/nothing-of-the-kind")
    done = fedtlu("run", "--config", tiny_file, "--model", "nobody/nothing-of-the-kind")
    one_message(done, "model.pretrained", "nobody/nothing-of-the-kind")


@pytest.mark.parametrize("command", ["run", "compare"])
def test_out_that_cannot_be_had_is_refused_before_any_work(
    fedtlu: Command, tiny_file: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "fedtlu_fast.build.parts.load_federation", lambda _: pytest.fail("read the data first")
    )
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = snapshot(tmp_path)
    for out in ("file", "full", "link"):
        done = fedtlu(command, "--config", tiny_file, "--out", tmp_path / out)
        one_message(done, "--out", str(tmp_path / out), "a new or empty directory")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("command", ["run", "compare"])
def test_out_that_cannot_be_made_is_refused(
    fedtlu: Command, tiny_file: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file" / "below", tmp_path / ("x" * 300), Path("/proc/fedtlu/out")):
        one_message(
            fedtlu(command, "--config", tiny_file, "--out", out), "--out", str(out)[:80], "Choose another"
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_out_in_a_directory_without_permission_is_refused(
    fedtlu: Command, tiny_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    done = fedtlu("run", "--config", tiny_file, "--out", tmp_path / "locked" / "out")
    one_message(done, "--out", "Permission denied")


def test_second_run_does_not_touch_the_first(fedtlu: Command, tiny_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert fedtlu("run", "--config", tiny_file, "--out", out).code == 0
    before = snapshot(out)
    one_message(fedtlu("run", "--config", tiny_file, "--out", out), "another run", "--resume")
    one_message(fedtlu("compare", "--config", tiny_file, "--out", out), "another run")
    assert snapshot(out) == before


@pytest.mark.parametrize(
    "beside",
    [
        ["--seed", 0],
        ["--rounds", 9],
        ["--set", "lr=1"],
        ["--out", "x"],
        ["--preset", "smoke"],
        ["--model", "gpt2"],
    ],
    ids=str,
)
@pytest.mark.parametrize("command", ["run", "compare"])
def test_settings_beside_resume_are_refused(
    fedtlu: Command, tiny_file: Path, tmp_path: Path, command: str, beside: list[object]
) -> None:
    if command == "run" and beside[0] == "--rounds":
        pytest.skip("a run can be made longer")
    done = fedtlu(command, "--resume", tmp_path / "out", *beside)
    one_message(done, str(beside[0]), "no value beside --resume")


def test_a_run_is_made_longer_beside_resume(fedtlu: Command, tiny_file: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    # Of the shorter run's last round no test is made that is not due in the longer one's.
    begin = ["run", "--config", tiny_file, "--set", "evaluation.local_every=2"]
    assert fedtlu(*begin, "--rounds", 5, "--out", whole).code == 0
    assert fedtlu(*begin, "--rounds", 4, "--out", out).code == 0
    one_message(fedtlu("run", "--resume", out, "--rounds", 3), "rounds: got 3", "4 or more: so many are done")
    assert fedtlu("run", "--resume", out, "--rounds", 5).code == 0
    assert left(out) == left(whole)
    again = fedtlu("run", "--resume", out, "--set", "rounds=6")
    assert again.code == 0, again.stderr
    assert len(rows(out / "metrics.jsonl")) == 6


def test_comparison_takes_beside_resume_what_becomes_of_failing_clients(
    fedtlu: Command, tmp_path: Path
) -> None:
    beside = ["compare", "--resume", tmp_path / "out", "--set"]
    one_message(fedtlu(*beside, "execution.workers=3"), "--set", "no value beside --resume")
    one_message(fedtlu(*beside, "execution.client_errors=drop"), "earlier comparison")


def test_who_trains_may_change_beside_resume(fedtlu: Command, tiny_file: Path, tmp_path: Path) -> None:
    whole = fedtlu("run", "--config", tiny_file, "--out", tmp_path / "whole", "--json")
    out = tmp_path / "out"
    assert fedtlu("run", "--config", tiny_file, "--out", out, "--json").code == 0
    # Back to the checkpoint of round 2.
    shutil.rmtree(out / "checkpoints" / "round-000005")
    (out / "summary.json").unlink()
    beside = ["--executor", "processes", "--workers", 2, "--set", "execution.retries=9"]
    done = fedtlu("run", "--resume", out, *beside, "--json")
    assert done.code == 0, done.stderr
    digest = "params_sha256"
    assert json.loads(done.stdout)[digest] == json.loads(whole.stdout)[digest]
    refused = fedtlu("run", "--resume", out, "--set", "execution.lanes=3")
    one_message(refused, "settings (config.yaml); they have changed since")


def test_dry_run_tells_what_is_needed_and_writes_nothing(
    fedtlu: Command, tiny_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = fedtlu("run", "--config", tiny_file, "--out", out, "--dry-run")
    assert done.code == 0, done.stderr
    for words in ("parameters", "serial, 1 worker(s)", "one round", "of", "free", "checkpoints on disk"):
        assert words in done.stdout
    found = json.loads(fedtlu("run", "--config", tiny_file, "--out", out, "--dry-run", "--json").stdout)
    assert not out.exists()
    summary = json.loads(fedtlu("run", "--config", tiny_file, "--out", out, "--json").stdout)
    assert found["parameters"] == summary["parameters"]
    assert found["upload_bytes"] * summary["rounds"] == summary["bytes_up"]
    disk = sum(path.stat().st_size for path in out.rglob("model.safetensors"))
    assert disk <= found["checkpoint_bytes"] * 1.5
    assert 0 < found["client_seconds"] < found["round_seconds"] < found["run_seconds"]


def test_memory_that_is_not_there_is_one_message(
    fedtlu: Command, tiny_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: Any) -> None:
        torch.empty(10**15)

    monkeypatch.setattr("fedtlu_fast.build.parts.load_federation", too_much)
    done = fedtlu("run", "--config", tiny_file)
    assert done.code == 1
    (line,) = lines_of(done)
    assert line.startswith("error: out of memory: ")
    assert "Use a smaller model" in line


def test_resume_of_a_finished_run_prints_the_same_summary(
    fedtlu: Command, tiny_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = fedtlu("run", "--config", tiny_file, "--out", out, "--json")
    again = fedtlu("run", "--resume", out, "--json")
    assert again.code == 0
    assert again.stdout == first.stdout
    said = "There is nothing left to do: this run has finished, after round"
    assert said in again.stderr
    assert said not in first.stderr
    assert said not in fedtlu("run", "--resume", out, "-q").stderr
    (out / "summary.json").unlink()  # killed in its last tests: the end is still to be made
    assert said not in fedtlu("run", "--resume", out).stderr


def test_resume_of_what_is_no_run_is_refused(fedtlu: Command, tmp_path: Path) -> None:
    one_message(fedtlu("run", "--resume", tmp_path / "nowhere"), "--resume", "config.yaml of an earlier run")
    one_message(fedtlu("compare", "--resume", tmp_path / "nowhere"), "--resume", "earlier comparison")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_exits_1_with_one_message_and_can_be_resumed(
    fedtlu: Command, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert fedtlu("run", "--config", tiny_file, "--out", tmp_path / "whole").code == 0

    from fedtlu_fast.runs import directory

    append = directory.append_to_file

    def fill(path: Path, line: bytes) -> None:
        if path.name == "metrics.jsonl" and json.loads(line)["round"] == 4:
            append(path, line[: len(line) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        append(path, line)

    with monkeypatch.context() as patch:
        patch.setattr(directory, "append_to_file", fill)
        done = fedtlu("run", "--config", tiny_file, "--out", out)
    assert done.code == 1
    assert done.stdout == ""
    (line,) = lines_of(done)
    assert line.startswith(f"error: {out / 'metrics.jsonl'} could not be written: No space left on device.")
    assert fedtlu("run", "--resume", out).code == 0
    for log in ("metrics.jsonl", "selection.jsonl"):
        assert timeless(rows(out / log)) == timeless(rows(tmp_path / "whole" / log))


@pytest.mark.parametrize("command", ["run", "compare"])
def test_ctrl_c_while_loading_exits_130_and_says_that_nothing_was_written(
    fedtlu: Command, tiny_file: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedtlu_fast.build.parts.load_federation", press)
    done = fedtlu(command, "--config", tiny_file, "--out", tmp_path / "out")
    assert done.code == 130
    assert lines_of(done) == ["stopped: nothing was written yet"]
    assert not (tmp_path / "out").exists()


def test_ctrl_c_while_the_report_is_written_says_how_to_resume(
    fedtlu: Command, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("fedtlu_fast.report.pages.run.write_run_report", press)
        done = fedtlu("run", "--config", tiny_file, "--out", out)
    assert done.code == 130
    assert lines_of(done) == [f"stopped: you can resume it with: fedtlu run --resume {out}"]
    assert fedtlu("run", "--resume", out).code == 0
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("place", "command", "again"),
    [
        ("fedtlu_fast.cli.run._simulate", ["run"], "give the same command again"),
        (
            "fedtlu_fast.simulation.run.Run.finish",
            ["run"],
            "you can resume it with: fedtlu run --resume {out}",
        ),
        (
            "fedtlu_fast.experiments.arm_runs.run_arms",
            ["compare"],
            "you can resume it with: fedtlu compare --resume {out}",
        ),
        (
            "fedtlu_fast.experiments.experiment.compare",
            ["experiment", "ptb-gpt2"],
            "you can resume it with the same command: fedtlu experiment ptb-gpt2 --set rounds=2 --out {out}",
        ),
    ],
    ids=["before anything", "run", "compare", "experiment"],
)
def test_a_failing_client_is_a_message_that_says_what_works_for_the_command(
    fedtlu: Command,
    tiny_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    command: list[str],
    again: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ClientError(3, 1, "its file is gone")

    out = tmp_path / "out"
    monkeypatch.setattr(place, fail)
    given = ["--set", "rounds=2"] if command[0] == "experiment" else ["--config", tiny_file]
    done = fedtlu(*command, *given, "--out", out)
    assert done.code == 1
    assert done.stderr.splitlines()[-1] == (
        "error: client 3 failed in round 1: its file is gone. Nothing of that round was kept; fix the cause, "
        f"then {again.format(out=out)}; to leave such clients out, add --set execution.client_errors=drop"
    )


@pytest.mark.parametrize("selector", ["full", "fedtlu"])
def test_model_of_a_single_block_runs_and_reports(
    fedtlu: Command, tiny_file: Path, tmp_path: Path, selector: str
) -> None:
    out = tmp_path / "out"
    given = ("--config", tiny_file, "--set", "layers=1", "--selector", selector, "--out", out)
    done = fedtlu("run", *given)
    assert done.code == 0, done.stderr
    assert (out / "report.html").exists()


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a model directory as transformers does, with its tokenizer."""
    folder = tmp_path_factory.mktemp("pretrained")
    words = ["<unk>", *WORDS]
    tokenizer = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    size = GPT2Config(vocab_size=len(words), n_positions=16, n_embd=8, n_layer=3, n_head=2)
    GPT2LMHeadModel(size).save_pretrained(folder)
    return folder


def test_pretrained_directory_really_trains(
    fedtlu: Command, tiny_file: Path, tmp_path: Path, pretrained: Path
) -> None:
    out = tmp_path / "out"
    done = fedtlu("run", "--config", tiny_file, "--model", pretrained, "--rounds", 12, "--out", out, "--json")
    assert done.code == 0, done.stderr
    metrics = rows(out / "metrics.jsonl")
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"] - 0.01
    scored = fedtlu("score", pretrained, out / "checkpoints" / "round-000012", "--json")
    assert scored.code == 0, scored.stderr
    assert all(row["l2"] > 0 for row in json.loads(scored.stdout)["blocks"])


def test_pretrained_directory_that_is_broken_is_one_message(
    fedtlu: Command, tiny_file: Path, tmp_path: Path, pretrained: Path
) -> None:
    one_message(
        fedtlu("run", "--config", tiny_file, "--model", pretrained, "--set", "window=17"), "window", "16"
    )
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        broken = shutil.copytree(pretrained, tmp_path / f"no-{name}")
        (broken / name).write_bytes(b"\x00garbage")
        one_message(fedtlu("run", "--config", tiny_file, "--model", broken), "model.pretrained", str(broken))


@pytest.mark.draws
@pytest.mark.usefixtures("in_process")
def test_compare_prints_table_or_json_and_leaves_the_picture(
    fedtlu: Command, tiny_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    given = ("compare", "--config", tiny_file, "--selectors", "fedtlu,random", "--seeds", 1, "--jobs", 1)
    done = fedtlu(*given, "--out", out, "--json")
    assert done.code == 0, done.stderr
    assert done.stdout == (out / "comparison.json").read_text()
    found = json.loads(done.stdout)
    assert [row["selector"] for row in found["table"]] == ["fedtlu", "random"]
    assert (out / "plots" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert {"table.md", "table.csv", "report.html"} <= {path.name for path in out.iterdir()}
    assert lines_of(done) == [f"Picture: {out / 'plots' / 'comparison.png'}   Page: {out / 'report.html'}"]
    # Finished: --resume runs no arm again, knows selectors and seeds by itself, and prints the same.
    again = fedtlu("compare", "--resume", out, "--json", "-q")
    assert again.stdout == done.stdout
    resumed = fedtlu("compare", "--resume", out)
    assert "There is nothing left to do" in resumed.stderr
    shown = resumed.stdout
    assert "5 rounds (2 warm-up, 3 targeted), 1 seed" in shown
    best = min(found["table"], key=lambda row: row["test_perplexity"])
    said = f"{best['selector']} has the lowest perplexity, {best['test_perplexity']:.2f}"
    assert said in shown
    assert said in (out / "table.md").read_text()
    assert said in (out / "report.html").read_text()
    for row in found["table"]:
        assert row["selector"] in shown
        assert f"{row['test_perplexity']:.2f}" in shown
    # A comparison's directory is not a run's, nor the other way round.
    one_message(fedtlu("run", "--resume", out), "--resume", "comparison")
    one_message(fedtlu("compare", "--resume", out / "fedtlu-seed0"), "--resume", "comparison")


@pytest.mark.parametrize(
    ("selectors", "words"),
    [
        ("fedtlu,best", ["best", "fedtlu, random"]),
        ("fedtlu,fedtlu", ["--selectors", "each once"]),
        (",", ["--selectors"]),
    ],
)
def test_compare_refuses_bad_selectors(
    fedtlu: Command, tmp_path: Path, selectors: str, words: list[str]
) -> None:
    one_message(fedtlu("compare", "--selectors", selectors, "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_settings_lists_every_setting_with_its_value(fedtlu: Command) -> None:
    done = fedtlu("settings", "--preset", "smoke")
    assert done.code == 0
    for word in (
        "training.proximal_mu",
        "selection.keep",
        "partition.alpha",
        "checkpoint.retain",
        "Presets: ",
    ):
        assert word in done.stdout
    one_message(fedtlu("settings", "--preset", "nope"), "preset", "'nope'")


def test_settings_are_found_by_a_word_in_their_name_or_meaning(fedtlu: Command) -> None:
    done = fedtlu("settings", "Byzantine")
    assert done.code == 0
    (entry,) = re.findall(r"^(\S+)$", done.stdout, re.MULTILINE)
    assert entry == "aggregation.byzantine"
    assert "whole number or number; default 0.2" in done.stdout
    assert "--set aggregation.rule=krum --set aggregation.byzantine=0.2" in done.stdout
    assert "evaluation.patience" in fedtlu("settings", "without a lower loss").stdout
    one_message(fedtlu("settings", "byzantyne"), "WORD: got 'byzantyne'. Did you mean byzantine?")


def test_settings_show_the_parameters_of_a_part_by_its_dotted_name(fedtlu: Command) -> None:
    def rows(name: str) -> list[list[str]]:
        done = fedtlu("settings", f"support.own_parts:{name}")
        assert done.code == 0, done.stderr
        assert f"Give it as {PLACES[name]}." in done.stdout
        lines = [line for line in done.stdout.splitlines() if line.startswith("│")]
        return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]

    assert rows("Cautious") == [["aggregation.floor", "float > 0, <= 1", "0.5", "the factor of the mean"]]
    assert [row[0] for row in rows("Unchecked")] == ["aggregation.floor", "aggregation.more"]
    assert rows("Odd")[0] == [
        "client_selection.budget.low",
        "int",
        "1",
        "number of layers of clients with even numbers",
    ]
    assert rows("middle") == []
    for wrong in ("Wrong", "nothing"):
        one_message(fedtlu("settings", f"support.own_parts:{wrong}"), "WORD", f"support.own_parts:{wrong}")


PLACES = {
    "Cautious": "aggregation.rule=support.own_parts:Cautious",
    "Unchecked": "aggregation.rule=support.own_parts:Unchecked",
    "Odd": "client_selection.budget.kind=support.own_parts:Odd",
    "middle": ", or ".join(
        f"{place}=support.own_parts:middle"
        for place in (
            *("model.architecture", "training.optimizer", "aggregation.rule", "selection.selector"),
            *("pretraining.optimizer", "client_selection.selector"),
        )
    ),
}


def test_env_tells_backends_and_why_not(fedtlu: Command) -> None:
    found = json.loads(fedtlu("env", "--json").stdout)
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0] or torch.__version__
    assert set(found["backends"]) == {"triton", "native", "reference"}
    assert all(text.startswith(("live on", "not live: ")) for text in found["backends"].values())
    assert found["backends"]["reference"].startswith("live on cpu")
    assert {"python", "platform", "threads", "devices"} <= found.keys()
    assert "reference" in fedtlu("env").stdout


def _checkpoint(path: Path, seed: int, **over: torch.Tensor) -> Path:
    draws = torch.Generator().manual_seed(seed)
    tensors = {f"h.{i}.w": torch.randn(8, 8, generator=draws) for i in range(11)} | {"e": torch.randn(30)}
    save_file({**tensors, **over}, path)
    return path


def test_score_prints_table_and_json(fedtlu: Command, tmp_path: Path) -> None:
    before, after = (_checkpoint(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2))
    found = json.loads(fedtlu("score", before, after, "--json").stdout)
    ranked = [row for row in found["blocks"] if row["rank"]]
    assert [row["rank"] for row in ranked] == list(range(1, 12))
    assert sorted((row["score"] for row in ranked), reverse=True) == [row["score"] for row in ranked]
    shown = fedtlu("score", before, after, "--top", 3).stdout
    assert "3 of 12" in shown
    assert ranked[0]["name"] in shown


def test_score_shows_hostile_names_as_they_are(fedtlu: Command, tmp_path: Path) -> None:
    name = "[red]x[/bold]"
    before, after = (
        _checkpoint(
            tmp_path / f"{seed}.safetensors", seed, **{name: torch.randn(4), "[/]": torch.tensor([seed])}
        )
        for seed in (1, 2)
    )
    done = fedtlu("score", before, after, "--top", 0)
    assert done.code == 0
    assert name in done.stdout
    assert "not scored: [/]" in done.stderr


def test_score_of_bad_files_is_one_message(fedtlu: Command, tmp_path: Path) -> None:
    good = _checkpoint(tmp_path / "good.safetensors", 1)
    whole = good.read_bytes()
    one_message(fedtlu("score", tmp_path / "gone", good), "BEFORE", "exists")
    for name, content in {
        "cut": whole[:-5],
        "empty": b"",
        "bomb": b"\xff" * 8 + b"{}",
        "garbage": os.urandom(500),
        "list": (2).to_bytes(8, "little") + b"[]",
    }.items():
        bad = tmp_path / f"{name}.safetensors"
        bad.write_bytes(content)
        one_message(fedtlu("score", good, bad), "AFTER", str(bad)[:60], "complete safetensors file")
    (tmp_path / "pickle.bin").write_bytes(b"cos\nsystem\n")
    one_message(fedtlu("score", tmp_path / "pickle.bin", good), "BEFORE", "pickle")
    other = _checkpoint(tmp_path / "other.safetensors", 1, e=torch.randn(31))
    one_message(fedtlu("score", good, other, "--strict"), "AFTER: e", "(31,)", "(30,)")
    one_message(fedtlu("score", good, good, "--backend", "quick"), "backend", "quick")
    one_message(fedtlu("score", good, good, "--ddof", 2), "ddof", "2")


@pytest.mark.slow
def test_installed_command_keeps_its_promises_outside_of_this_process(
    tiny_file: Path, tmp_path: Path
) -> None:
    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = str(Path(sys.executable).with_name("fedtlu"))
        env = {**os.environ, **environment}
        return subprocess.run(
            [command, *arguments], capture_output=True, text=True, cwd=tmp_path, env=env, check=False
        )

    # A terminal that knows no Unicode is no reason to fail.
    done = call("run", "--config", str(tiny_file), "--out", "é", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    done = call("run", "--config", str(tiny_file), "--out", "é", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --out: got ")
    assert done.stderr.count("\n") == 1
    help_ = call("--help")
    assert help_.returncode == 0
    assert "fedtlu compare" in help_.stdout


def test_matplotlib_says_nothing_of_a_home_that_cannot_be_written(fedtlu: Command) -> None:
    assert fedtlu("settings").code == 0
    assert not logging.getLogger("matplotlib").isEnabledFor(logging.WARNING)
