import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedtlu_fast.cli.main import main


@dataclass(frozen=True)
class Done:
    """Tells how a command ended."""

    code: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def fedtlu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process, in an empty working directory."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["fedtlu", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        found = capsys.readouterr()
        return Done(code, found.out, found.err)

    return call
