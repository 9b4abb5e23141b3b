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
    done = subprocess.run(command, env=environment, check=False, timeout=840, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


# What does not reach the memory's speed, with the bound that it must keep: these count more instructions, or
# operations of float64, than the memory leaves time for (`docs/results/performance.md` has the figures).
CLIENTS = "aggregate bf16 clients_stats"
WITH_BASE = "aggregate bf16 base clients_stats"
BELOW = {
    ("H200", CLIENTS): 0.78,
    ("B200", CLIENTS): 0.53,
    ("T4", WITH_BASE): 0.73,
    ("RTX 3090", WITH_BASE): 0.78,
    ("MI300X", WITH_BASE): 0.67,
    ("H100 SXM", WITH_BASE): 0.65,
    ("A100 80GB SXM", WITH_BASE): 0.6,
    ("H200", WITH_BASE): 0.45,
    ("B200", WITH_BASE): 0.31,
    ("B200", "aggregate fp32 base clients_stats"): 0.62,
}


def check(found: list[dict[str, str]]) -> None:
    """Checks that kernels reach the memory's speed, with no float64 in the loop if float64 is slow."""
    for row in found:
        name = " ".join(row[key] for key in ("op", "dtype", "variant") if row[key])
        # One register, on the path of tiles at a layer's ends.
        spilt = (row["gpu"], name) in {("T4", "aggregate fp32 base"), ("RTX 5090", "aggregate bf16 base")}
        assert row["spills"] in (("0", "3") if spilt else ("0",)), row
        assert "x16" in row["loads"], row
        least = BELOW.get((row["gpu"], name), 0.9)
        assert min(float(row["loop_strict"]), float(row["tile_strict"])) >= least, row
        if row["sums"] == "pairs":
            assert float(row["f64"]) == float(row["conversions"]) == 0, row


def test_kernels_reach_the_memory_s_speed_on_one_gpu(tmp_path):
    found = rows(
        tmp_path,
        "--only",
        "layer_stats fp32",
        "aggregate bf16 clients",
        "--skip",
        "unaligned",
        "--arch",
        "sm_120",
    )
    assert [(row["gpu"], row["sums"], row["bytes"]) for row in found] == [
        ("RTX 5090", "pairs", "4"),
        ("RTX 5090", "pairs", "2"),
    ]
    check(found)


OPERATIONS = ("layer_stats", "accumulate_", "aggregate", "masked_apply_")


@pytest.mark.slow
@pytest.mark.timeout(900)  # compilers
@pytest.mark.parametrize(
    "arch", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942", "gfx1100"]
)
def test_kernels_reach_the_memory_s_speed_on_every_gpu(tmp_path, arch):
    names = [f"{op} {dtype}" for op in OPERATIONS for dtype in ("fp32", "bf16")]
    found = rows(tmp_path, "--only", *names, "--skip", "unaligned", "--arch", arch)
    assert len({(row["op"], row["dtype"], row["variant"]) for row in found}) == 2 * (1 + 4 + 4 + 1)
    check(found)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_kernel_spills_but_one_merge(tmp_path):
    found = rows(
        tmp_path, "--only", "fp32", "bf16", "merge", "--skip", "unaligned", "--arch", "sm_86", "gfx1100"
    )
    assert {row["op"] for row in found} == {
        "layer_stats",
        "accumulate_",
        "aggregate",
        "masked_apply_",
        "merge",
        "sorted_mean",
        "squared_distances_from",
    }
    assert not [row for row in found if row.get("failed")]
    # A merge that begins holds 64 keys and their two kinds of places.
    spilt = [row["variant"] for row in found if row["spills"] != "0" and row["arch"] == "sm_86"]
    assert spilt in ([], ["200 clients, merge runs, 6 layers"])
    assert not [row for row in found if row["spills"] != "0" and row["arch"] != "sm_86"]
