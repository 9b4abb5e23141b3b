"""Finds real data for tests on machines that have them; nothing is downloaded."""

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("FEDTLU_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def real(name: str) -> Path:
    """Returns the folder of this data set; skips the test if it is missing."""
    if not (ROOT / name).is_dir():
        pytest.skip(f"{name} is not in {ROOT} (FEDTLU_TEST_DATA)")
    return ROOT / name
