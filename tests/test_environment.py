"""Tests that facts which decide the last bits are recorded, and that differences give a warning."""

import platform
from pathlib import Path

import pytest
from support.federations import tiny, write_text
from support.sources import source

from fedtlu_fast import InputError, simulate
from fedtlu_fast.environment import DATA, data_line, differences, environment_facts
from fedtlu_fast.runs.facts import read_facts
from fedtlu_fast.simulation.state import _changed_since


def test_facts_name_versions_and_the_cpu(monkeypatch):
    facts = environment_facts("cpu", "Python 3.11.7's pydoc topics")
    assert facts["python"] == platform.python_version()
    assert {"torch", "numpy", "cpu_capability", "simd", DATA} <= facts.keys()
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    found = differences(facts, environment_facts("cpu"), "there")
    assert found == (
        "data (Python 3.11.7's pydoc topics there, not set here), MKL_CBWR (not set there, COMPATIBLE here)"
    )
    assert differences(facts, facts, "there") == ""


def test_embedded_data_name_the_python_that_brought_them():
    assert (
        source("pydoc").made_with
        == source("topics").made_with
        == f"Python {platform.python_version()}'s pydoc topics"
    )
    assert source("pycode").made_with.endswith("'s standard library")
    assert source("text:a.txt").made_with == ""
    summary = {"environment": {DATA: source("pydoc").made_with}, "data_sha256": "0123456789abcdef"}
    assert data_line(summary) == f"{source('pydoc').made_with}, fingerprint 0123456789ab"


def test_summaries_and_checkpoints_hold_the_facts(tmp_path):
    text = write_text(tmp_path / "text.txt", words=600)
    summary = simulate(tiny(text, rounds=1), tmp_path / "out").summary
    assert summary["environment"] == environment_facts("cpu")
    assert len(summary["data_sha256"]) == 64
    assert read_facts(tmp_path / "out" / "checkpoints" / "round-000001").environment == summary["environment"]


def test_data_of_another_python_are_named():
    then, now = ({DATA: f"Python {version}'s pydoc topics"} for version in ("3.11.7", "3.12.1"))
    error = _changed_since(Path("x"), "data_sha256", then, now)
    assert isinstance(error, InputError)
    assert "made with Python 3.11.7's pydoc topics, and here are Python 3.12.1's" in str(error)
    assert "Resume it with Python 3.11.7" in str(error)
    assert "settings" in str(_changed_since(Path("x"), "config_sha256", then, now))
    with pytest.raises(InputError, match="they have changed since"):
        raise _changed_since(Path("x"), "data_sha256", now, now)
