"""Tests the bounds that are computed from the kernels' machine code, and what they say of the kernels."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from gpu_bounds.hot_path import Graph, hot_path  # noqa: E402
from gpu_bounds.machine_code import parse  # noqa: E402

triton = pytest.importorskip("triton")

# A kernel with a masked and a whole branch, each with a loop, and a tail that most tiles leave out. The loop
# of the whole branch is left in its middle.
LISTING = """
        /*0000*/                   LDG.E.64 R2, [R2.64] ;
        /*0010*/               @P0 BRA `(.L_x_2) ;
.L_x_0:
        /*0020*/                   LDG.E.128 R4, desc[UR6][R6.64] ;
        /*0030*/                   F2F.F64.F32 R8, R4 ;
        /*0040*/                   DADD R10, R10, R8 ;
        /*0050*/              @!P1 BRA `(.L_x_4) ;
        /*0060*/                   FADD R12, R12, R4 ;
        /*0070*/                   BRA `(.L_x_0) ;
.L_x_2:
        /*0080*/               @P2 LDG.E R4, [R6.64] ;
        /*0090*/                   IADD3 R6, R6, 0x4, RZ ;
        /*00a0*/               @P3 BRA `(.L_x_2) ;
.L_x_4:
        /*00b0*/              @!P4 EXIT ;
        /*00c0*/                   STG.E.64 desc[UR6][R6.64], R2 ;
        /*00d0*/                   EXIT ;
.L_x_5:
        /*00e0*/                   BRA `(.L_x_5);
"""


def test_the_whole_tile_s_path_and_its_loop_are_found():
    code, labels = parse(LISTING, amd=False)
    path, loop = hot_path(Graph(code, labels), False, 16, frozenset({16}), True, 1)
    assert loop is not None
    assert dict(loop.kinds) == {"memory": 1, "convert": 1, "f64": 1, "f32": 1, "control": 2}
    assert (loop.issued, dict(loop.loads)) == (6, {16: 1})
    assert (path.issued, dict(path.loads), dict(path.stores)) == (7, {8: 1, 16: 1}, {})


def test_a_kernel_without_such_a_path_is_refused():
    code, labels = parse(LISTING, amd=False)
    with pytest.raises(ValueError, match="no path with a loop moves 32 bytes"):
        hot_path(Graph(code, labels), False, 32, frozenset({16}), True, 1)


def rows(folder: Path, *arguments: str) -> list[dict[str, str]]:
    """Runs the script in a process of its own, in which Triton compiles rather than interprets."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    file = folder / "rows.csv"
    command = [sys.executable, str(BENCHMARKS / "gpu_static.py"), "--csv", str(file), *arguments]
    done = subprocess.run(command, env=environment, check=False, timeout=1500, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_compiled_kernel_has_no_spills_and_wide_loads(tmp_path):
    """One kernel on one architecture; the slow test has all."""
    (row,) = rows(tmp_path, "--only", "layer_stats fp32", "--arch", "sm_120")
    assert (row["gpu"], row["spills"], row["loads"]) == ("RTX 5090", "0", "4x16")
    assert float(row["bytes"]) == 4
    assert float(row["loop_strict"]) <= float(row["loop_lenient"]) <= 1
