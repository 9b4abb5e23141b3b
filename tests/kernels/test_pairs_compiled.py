"""Tests that the compilers leave the pairs' arithmetic as it is written: no GPU is needed for that."""

import json
import os
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("triton")

PROGRAM = Path(__file__).parents[1] / "support" / "disassembly.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.system() != "Linux", reason="Triton's compiler runs on Linux"),
]


@pytest.mark.parametrize("capability", [86, 89, 120])
def test_the_loop_has_exactly_the_operations_that_are_written(capability, tmp_path):
    """Per element: two two-sums (6 each), the low parts, x * x and its error, the largest magnitude."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, PROGRAM, str(capability)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for dtype, found in json.loads(done.stdout).items():
        narrow = dtype != "fp32"
        expected = {
            "FADD": 6 + 1 + 6 + (1 if narrow else 2),
            "FMUL": 1,
            "FFMA": 0 if narrow else 1,
            "FMNMX": 1,
        }
        n = found["elements"]
        sass, ptx = Counter(found["sass"]), Counter(found["ptx"])
        assert {name: sass[name] / n for name in expected} == expected
        adds = sum(count for name, count in ptx.items() if name in ("add.rn.f32", "sub.rn.f32"))
        assert adds / n == expected["FADD"]
        assert (ptx["mul.rn.f32"] / n, ptx["fma.rn.f32"] / n) == (1, expected["FFMA"])
        floats = {name for name in ptx if name.endswith("f32")}
        assert floats <= {
            "add.rn.f32",
            "sub.rn.f32",
            "mul.rn.f32",
            "fma.rn.f32",
            "max.f32",
            "abs.f32",
            "neg.f32",
        }
        assert found["flushed"] == []
        # All else: address, bounds and counter, one conversion of a 16-bit number.
        assert sum(sass.values()) / n < sum(expected.values()) + narrow + 1
