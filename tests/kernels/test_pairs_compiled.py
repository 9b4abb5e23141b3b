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


# Float32 operations per element: additions, products, fused, and the largest magnitude.
WRITTEN = {
    # Two two-sums (6 each), the low parts, x * x and its error.
    "layer_stats fp32": (6 + 1 + 6 + 2, 1, 1, 1),
    "layer_stats bf16": (6 + 1 + 6 + 1, 1, 0, 1),
    "layer_stats fp16": (6 + 1 + 6 + 1, 1, 0, 1),
    # A product, its error, a two-sum, the two errors together, the low weight, the low part.
    "aggregate": (6 + 1 + 1, 1, 2, 0),
    # And the difference, its error, and that times the weight.
    "aggregate base": (6 + 6 + 1 + 1, 1, 3, 0),
    # As in aggregate, to a scaled number; the pair together, scaled back, what that lost, and the sum of it.
    "masked_apply": (6 + 1 + 1 + 1 + 1, 3, 3, 0),
}
# A thread adds up what its n numbers lost in n - 1 additions; the 128 threads of a program join in 5 + 2.
JOINING = 6


@pytest.mark.parametrize("capability", [86, 89, 120])
def test_the_loop_has_exactly_the_operations_that_are_written(capability, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, PROGRAM, str(capability)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report) == 12
    for name, found in report.items():
        kernel, _, dtype = name.rpartition(" ")
        written = WRITTEN.get(name) or WRITTEN[kernel]
        expected = dict(zip(("FADD", "FMUL", "FFMA", "FMNMX"), written, strict=True))
        n = found["elements"]
        sass, ptx = Counter(found["sass"]), Counter(found["ptx"])
        if kernel == "masked_apply":
            sass["FADD"] -= JOINING
            ptx["add.rn.f32"] -= JOINING
            # Half of the products are computed twice rather than kept in registers.
            sass["FMUL"] -= n // 2 if sass["FMUL"] > 3 * n else 0
            assert ptx.pop("setp.eq.f32") == 1  # whether nothing was lost
        assert {key: sass[key] / n for key in expected} == expected, name
        adds = sum(count for key, count in ptx.items() if key in ("add.rn.f32", "sub.rn.f32"))
        assert (adds / n, ptx["mul.rn.f32"] / n, ptx["fma.rn.f32"] / n) == written[:3], name
        floats = {key for key in ptx if key.endswith("f32")}
        assert floats <= {
            "add.rn.f32",
            "sub.rn.f32",
            "mul.rn.f32",
            "fma.rn.f32",
            "max.f32",
            "abs.f32",
            "neg.f32",
        }, name
        assert found["flushed"] == [], name
        # All else: addresses, bounds and counter, conversions of 16-bit numbers; and in aggregate, where an
        # element has few operations, the next client's numbers change registers. In masked_apply also
        # stores, and 16-bit numbers that change threads.
        rest = 1 if kernel == "layer_stats" else 7
        assert sum(sass.values()) / n < sum(written) + (dtype != "fp32") + rest, (name, sass)
