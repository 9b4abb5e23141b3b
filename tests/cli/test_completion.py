"""Tests what needs a process of its own: completion, and what start-up loads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.run_folders import begun_run

WITHOUT_TORCH = (
    "import sys\n"
    "from fedtlu_fast.cli.main import main\n"
    "sys.argv = ['fedtlu', *sys.argv[1:]]\n"
    "try:\n"
    "    main()\n"
    "except SystemExit as end:\n"
    "    loaded = {'torch', 'transformers', 'numpy', 'matplotlib'} & sys.modules.keys()\n"
    "    sys.exit(f'loaded {loaded}' if loaded else end.code)\n"
)


def call(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False)


def completed(folder: Path, words: str) -> list[str]:
    """Returns what bash would offer at the end of these words."""
    done = call(
        folder,
        _FEDTLU_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split(" ")) - 1),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


def test_names_are_completed_without_torch(tmp_path: Path) -> None:
    begun_run(tmp_path / "runs" / "20260101-000000-a")
    assert completed(tmp_path, "fedtlu run --preset qu") == ["quickstart"]
    assert completed(tmp_path, "fedtlu run --set training.mom") == ["training.momentum="]
    assert completed(tmp_path, "fedtlu compare --selectors fedtlu,r") == ["fedtlu,random"]
    assert completed(tmp_path, "fedtlu watch 2") == ["20260101-000000-a"]
    begun_run(tmp_path / "runs" / "20260102-000000-mine")
    for odd in ("20260103-000000-$(touch x)", "20260104-000000-\x1b[31m", "20260105-000000-a"):
        begun_run(tmp_path / "runs" / odd)
    assert completed(tmp_path, "fedtlu watch m") == ["mine"]
    assert completed(tmp_path, "fedtlu watch a") == [], "two runs have this name"
    two = ["20260105-000000-a", "20260102-000000-mine", "20260101-000000-a"]
    assert completed(tmp_path, "fedtlu watch 2026") == two, "a shell would act on the other names"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["settings", "momentum"], "training.momentum"),
        (["compare", "--help"], "Chooses the best-scoring blocks"),
        (["runs"], "fedtlu"),
        (["--show-completion", "bash"], "_FEDTLU_COMPLETE"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_help_and_lists_do_not_load_torch(tmp_path: Path, arguments: list[str], said: str) -> None:
    begun_run(tmp_path / "runs" / "20260101-000000-a")
    done = call(tmp_path, *arguments, SHELL="/bin/bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_the_package_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedtlu_fast", "-h"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: fedtlu [OPTIONS] COMMAND")
