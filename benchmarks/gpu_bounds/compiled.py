"""Compiles recorded launches for GPUs that are not here, and asks for registers, spills and shared memory."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gpu_bounds.hot_path import Graph, hot_path
from gpu_bounds.launches import Launch, Variant
from gpu_bounds.machine_code import Counts, parse
from gpu_bounds.targets import Architecture

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Resources:
    """What a kernel occupies.

    Attributes:
        registers: of a thread.
        spills: instructions that move registers to memory and back (AMD: registers and bytes that lie there).
        shared: bytes of shared memory of a program.
        warps: how many warps (AMD: waves) a processor holds at once.
    """

    registers: int
    spills: int
    shared: int
    warps: int


@dataclass(frozen=True)
class Code:
    """A kernel's machine code in figures.

    Attributes:
        path: the counts of a whole tile's path, through its loops once.
        loop: the counts of one turn of the main loop; None if there is none.
        used: registers, spills, shared memory, and warps (AMD: waves) that a processor holds at once.
        occupancy: the share of the warps that it could hold.
        threads: of a program.
    """

    path: Counts
    loop: Counts | None
    used: Resources
    occupancy: float
    threads: int


def analyse(variant: Variant, architecture: Architecture) -> Code:
    """Compiles a variant's kernel for one architecture and reads the result.

    Raises:
        ValueError: The machine code has no path that a whole tile could take.
    """
    used, text = compile_launch(variant.launch, architecture)
    amd, threads = architecture.backend == "hip", variant.launch.warps * architecture.warp
    needed = variant.turn * variant.step or (variant.read + variant.written) * variant.elements
    code, labels = parse(text, amd)
    widths, slowness = variant.widths(threads), architecture.issue // architecture.f64
    path, loop = hot_path(Graph(code, labels), amd, needed / threads, widths, bool(variant.step), slowness)
    return Code(path, loop, used, used.warps / architecture.warps, threads)


def compile_launch(launch: Launch, architecture: Architecture) -> tuple[Resources, str]:
    """Compiles one launch, as Triton would at the launch; returns what it needs, and its assembly text."""
    target = GPUTarget(architecture.backend, architecture.arch, architecture.warp)
    source = ASTSource(launch.kernel, launch.signature, launch.constants, launch.attributes)
    made = triton.compile(source, target=target, options=dict(launch.options))
    if architecture.backend == "hip":
        text = made.asm["amdgcn"]
        return _amd(text, made.metadata.shared, launch.warps, architecture), text
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        text = _run("nvdisasm", "-c", file.name)
        usage = _run("cuobjdump", "-res-usage", file.name)
    return _nvidia(usage, text, made.metadata.shared, launch.warps, architecture), text


def _nvidia(usage: str, text: str, shared: int, warps: int, architecture: Architecture) -> Resources:
    registers = _figure(usage, r"\bREG:(\d+)")
    spills = len(re.findall(r"\b(?:LDL|STL)\b", text))
    # Registers are dealt to a warp in units of 256; from 8.0 on, a program takes 1 KiB of shared memory more.
    per_warp = -(-registers * 32 // 256) * 256
    per_program = shared + (1024 if int(architecture.arch) >= 80 else 0)
    programs = min(
        65536 // (per_warp * warps),
        architecture.warps // warps,
        architecture.programs,
        architecture.shared // max(per_program, 1),
    )
    return Resources(registers, spills, shared, programs * warps)


def _amd(text: str, shared: int, warps: int, architecture: Architecture) -> Resources:
    # Scalar registers are moved into lanes of vector registers, not to memory.
    spills = sum(
        _figure(text, rf"\.{name}:\s+(\d+)") for name in ("vgpr_spill_count", "private_segment_fixed_size")
    )
    # LLVM's figure is for one of the processor's units, by registers alone.
    waves = _figure(text, r"; Occupancy: (\d+)") * architecture.schedulers
    waves = min(waves // warps, architecture.shared // max(shared, 1)) * warps
    return Resources(_figure(text, r"\.vgpr_count:\s+(\d+)"), spills, shared, waves)


def _figure(text: str, pattern: str) -> int:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"the compiler's output has no {pattern}: its format is new")
    return int(match[1])


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([_TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout
