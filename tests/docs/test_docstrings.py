"""Tests that the examples in docstrings give what they show."""

import doctest
import importlib
import re
from pathlib import Path

import pytest
import torch

import fedtlu_fast as ft

PACKAGE = Path(ft.__file__).parent
EXAMPLE = re.compile(r"^ *>>> (?!.*doctest: \+SKIP)", re.M)
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if EXAMPLE.search(file.read_text(encoding="utf-8"))]
OTHERS = {"flower": "flwr"}
"""Folders whose modules need a package that the tests' own environment lacks."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_the_examples_of_a_module_run(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, needed in OTHERS.items():
        if folder in file.parts:
            pytest.importorskip(needed)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(
        ".".join(("fedtlu_fast", *file.relative_to(PACKAGE).with_suffix("").parts))
    )
    found = doctest.testmod(module, extraglobs={"torch": torch, "ft": ft})
    assert not found.failed, capsys.readouterr().out


def test_examples_have_the_heading_that_the_reference_reads() -> None:
    files = [
        file for file in PACKAGE.rglob("*.py") if re.search(r"^ +Example:$", file.read_text("utf-8"), re.M)
    ]
    assert not files, "write Examples: with an s"


def test_there_are_examples() -> None:
    assert len(FILES) > 10
