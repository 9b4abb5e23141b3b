"""Tests the campaign of faults on a few cases: it runs, and it detects wrong results."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).parents[2] / "benchmarks" / "faults.py"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="faults are put in by what Linux offers")


def campaign(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", str(CAMPAIGN), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        ("settings changed, then --resume", 1),
        pytest.param("--resume", 10, marks=pytest.mark.slow),
    ],
)
def test_faults_are_survived_or_told(tmp_path: Path, kind: str, least: int) -> None:
    table = tmp_path / "faults.csv"
    done = campaign("--share", "0.01", f"--kind={kind}", "--csv", str(table))
    assert done.returncode == 0, done.stdout + done.stderr
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= least
    assert all(row["wrong"] == "0" for row in rows)
    assert sum(int(row["same_bits"]) + int(row["one_message"]) for row in rows) > 0
    if least > 1:
        assert all(sum(int(row[came]) for row in rows) > 0 for came in ("same_bits", "one_message"))


BLIND = """
import runpy, sys
import fedtlu_fast.runs.logs, fedtlu_fast.simulation.state as state
state.changed_log = lambda *_: None  # logs are believed
sys.argv = [{campaign!r}, "--kind", "a file of a killed run", "--share", "0.06"]
runpy.run_path({campaign!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_a_package_that_believes_its_logs_is_found_out() -> None:
    code = BLIND.format(campaign=str(CAMPAIGN))
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "wrong" in done.stdout
    assert "some cases ended in a wrong way" in done.stderr
