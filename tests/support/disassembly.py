"""Compiles kernels for a GPU that need not be here, and counts the main loops' instructions.

Runs as a program of its own, because the tests' process has Triton's interpreter in place of the compiler.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fedtlu_fast.kernels import aggregate, layer_stats, masked_apply

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
TYPES = {"starts": "*i64", "firsts": "*i64", "stops": "*i64", "partials": "*fp64", "out": "*fp32"}
TYPES |= {"table": "*i64", "clients": "i32", "scale": "i32", "tiles": "i32"}
TYPES |= {"params": "*fp32", **dict.fromkeys(("lr_high", "lr_low", "pair_high", "pair_low"), "i32")}


def launches(size: int) -> dict[str, tuple[Any, dict[str, Any], int, int]]:
    """Returns each kernel with its constants, its warps, and the elements of a turn of its loop."""
    steps = {"ROWS": layer_stats.ROWS, "WIDTH": layer_stats.ROW_BYTES // size, "PAIRS": True}
    found = {
        "layer_stats": (
            layer_stats.tile_moments_kernel,
            steps,
            layer_stats.THREADS // 32,
            steps["ROWS"] * steps["WIDTH"],
        )
    }
    block = aggregate.BLOCK
    flags = {"CLIENT_STATS": False, "ALIGNED": True, "PAIRS": True, "BLOCK": block}
    for name, based in (("aggregate", False), ("aggregate base", True)):
        constants = {"HAS_BASE": based, **flags}
        found[name] = aggregate.aggregate_kernel, constants, aggregate.THREADS.value // 32, block
    block = masked_apply.BLOCK_BYTES // 4
    constants = {"TARGET_ALIGNMENT": 16, "PAIRS": True, "BLOCK": block}
    warps = masked_apply.THREADS // 32
    found["masked_apply"] = masked_apply.masked_apply_kernel, constants, warps, block
    return found


def compiled(
    kernel: Any, constants: dict[str, Any], warps: int, dtype: str, capability: int
) -> dict[str, str]:
    """Returns the PTX and the machine code (SASS) of the kernel with pairs."""
    types = {"origin": f"*{dtype}", "base": f"*{dtype}", "delta": f"*{dtype}", **TYPES}
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, name in enumerate(kernel.arg_names)
        if signature[name].startswith("*")
    }
    built = triton.compile(
        ASTSource(kernel, signature, constants, aligned),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "enable_fp_fusion": False},
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        sass = subprocess.run([CUOBJDUMP, "-sass", file.name], capture_output=True, text=True, check=True)
    return {"ptx": built.asm["ptx"], "sass": sass.stdout}


def operation(instruction: str) -> str:
    return re.sub(r"^@\S+\s+", "", instruction).split()[0]


def ptx_loops(text: str) -> list[list[list[str]]]:
    """Returns the blocks of operations of every loop: from a label to the last jump back to it."""
    lines = [line.strip() for line in text.splitlines()]
    labels = {line.partition(":")[0]: at for at, line in enumerate(lines) if re.match(r"\$\w+:", line)}
    instructions, jumps = {}, {}
    for at, line in enumerate(lines):
        if line.endswith(";"):
            instructions[at] = line
        if jump := re.search(r"\bbra(?:\.uni)?\s+(\$\w+);", line):
            jumps[at] = labels[jump.group(1)]
    return loops_of(instructions, jumps)


def sass_loops(text: str) -> list[list[list[str]]]:
    """Does the same for machine code, where jumps name addresses."""
    found = re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(.*?)\s*;", text)
    instructions = {int(address, 16): instruction for address, instruction in found}
    jumps = {}
    for at, instruction in instructions.items():
        if jump := re.search(r"\bBRA\b.*?0x([0-9a-f]+)", instruction):
            jumps[at] = int(jump.group(1), 16)
    return loops_of(instructions, jumps)


def loops_of(instructions: dict[int, str], jumps: dict[int, int]) -> list[list[list[str]]]:
    """Returns the blocks of every loop, from the instructions and the jumps' targets by their places."""
    loops = []
    for begin, end in {target: at for at, target in jumps.items() if target < at}.items():
        blocks: list[list[str]] = [[]]
        for at, instruction in instructions.items():
            if begin <= at <= end:
                if at in jumps.values():
                    blocks.append([])
                blocks[-1].append(operation(instruction))
                if at in jumps:
                    blocks.append([])
        loops.append(blocks)
    return loops


def wide_loop(loops: list[list[list[str]]], load: str, double: str) -> dict[str, int]:
    """Counts the operations of the only loop with 16-byte loads, but for blocks with float64 in them."""
    in_pairs = [
        [each for block in blocks if not any(re.search(double, each) for each in block) for each in block]
        for blocks in loops
    ]
    [loop] = [loop for loop in in_pairs if any(re.match(load, each) for each in loop)]
    counts: Counter[str] = Counter()
    for each in loop:
        # Blackwell adds two numbers in one instruction (x2), or a float16 to a float32 (FHADD).
        name = each.removesuffix("x2").replace("add.rn.f32.f16", "add.rn.f32").replace("FHADD", "FADD")
        counts[name] += 2 if each.endswith(".f32x2") else 1
    return counts


def main() -> None:
    capability = int(sys.argv[1])
    report: dict[str, dict[str, object]] = {}
    for dtype, size in (("fp32", 4), ("bf16", 2), ("fp16", 2)):
        for name, (kernel, constants, warps, elements) in launches(size).items():
            text = compiled(kernel, constants, warps, dtype, capability)
            flushed = re.findall(r"\S*\bftz\b\S*", text["ptx"]) + re.findall(r"\S+\.FTZ\S*", text["sass"])
            report[f"{name} {dtype}"] = {
                "elements": elements // (32 * warps),
                "flushed": flushed,
                "ptx": wide_loop(ptx_loops(text["ptx"]), r"ld\.global.*\.v[24]\.b(32|64)", r"\bf64\b"),
                "sass": wide_loop(sass_loops(text["sass"]), r"LDG\.E\S*\.128", r"^D[A-Z]+\b|F64"),
            }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
