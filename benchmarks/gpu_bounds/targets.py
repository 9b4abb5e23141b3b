"""The GPUs of the table, with their published rates, and the architectures that kernels are compiled for.

Sources:

- Operations per clock and processor of NVIDIA's: CUDA C++ Programming Guide, "Arithmetic Instructions",
  table "Throughput of Native Arithmetic Instructions": float32 add/multiply/fused, integer, compare and
  logic ("alu"), float64, conversions from and to 64-bit types, warp shuffle. Four schedulers issue one
  instruction of a warp (32 threads) per clock each: 128 ("issue"; tuning guides of the architectures).
- Warps, programs, shared memory: the same guide, table "Technical Specifications per Compute Capability".
- AMD's: "CDNA 3 Instruction Set Architecture" and its white paper (four units of 16 lanes, which take a
  wave of 64 in four clocks; float64 at full rate; packed float32 at twice the rate); "RDNA 3 Instruction Set
  Architecture" (two units of 32 lanes; float64 at 1/16 of the rate of 64 lanes, from the data sheet's 1.92
  TFLOP/s). That conversions run like float64: LLVM's scheduling model (`SISchedule.td`).
- Bandwidth, processors and clock (boost): the vendors' data sheets, named in each row.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """An instruction set, and what a processor (SM or CU) of it does per clock, in operations of a thread.

    Attributes:
        name: for the table.
        backend, arch, warp: Triton's target.
        f32, alu, f64, convert, shared, issue: operations per clock; on AMD `issue` is that of vector
            instructions.
        slow: whether float64 and its conversions share one slow unit (a sixteenth of float32 or less).
        warps, programs, shared: the most that a processor holds: warps, programs, bytes of shared memory.
        schedulers: units that hold waves of their own.
    """

    name: str
    backend: str
    arch: int | str
    warp: int
    f32: int
    alu: int
    f64: int
    convert: int
    shuffle: int
    issue: int
    slow: bool
    warps: int
    programs: int
    shared: int
    schedulers: int = 4


_KIB = 1024
ARCHITECTURES = {
    one.name: one
    for one in (
        Architecture("sm_75", "cuda", 75, 32, 64, 64, 2, 2, 32, 128, True, 32, 16, 64 * _KIB),
        Architecture("sm_80", "cuda", 80, 32, 64, 64, 32, 16, 32, 128, False, 64, 32, 164 * _KIB),
        Architecture("sm_86", "cuda", 86, 32, 128, 64, 2, 2, 32, 128, True, 48, 16, 100 * _KIB),
        Architecture("sm_89", "cuda", 89, 32, 128, 64, 2, 2, 32, 128, True, 48, 24, 100 * _KIB),
        Architecture("sm_90", "cuda", 90, 32, 128, 64, 64, 16, 32, 128, False, 64, 32, 228 * _KIB),
        Architecture("sm_100", "cuda", 100, 32, 128, 64, 64, 16, 32, 128, False, 64, 32, 228 * _KIB),
        Architecture("sm_120", "cuda", 120, 32, 128, 64, 2, 2, 32, 128, True, 48, 24, 100 * _KIB),
        Architecture("gfx942", "hip", "gfx942", 64, 128, 64, 64, 64, 32, 64, False, 32, 32, 64 * _KIB),
        Architecture("gfx1100", "hip", "gfx1100", 32, 128, 128, 4, 4, 32, 64, True, 32, 32, 64 * _KIB, 2),
    )
}


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: as its vendor writes it.
        architecture: a key of `ARCHITECTURES`.
        bandwidth: of its memory, in GB/s.
        processors: SMs or CUs.
        clock: boost clock in MHz.
        source: where bandwidth, processors and clock stand.
    """

    name: str
    architecture: str
    bandwidth: float
    processors: int
    clock: int
    source: str


GPUS = (
    Gpu("T4", "sm_75", 320, 40, 1590, "NVIDIA T4 data sheet; Turing architecture white paper"),
    Gpu("A100 80GB SXM", "sm_80", 2039, 108, 1410, "NVIDIA A100 data sheet; Ampere architecture white paper"),
    Gpu("A10", "sm_86", 600, 72, 1695, "NVIDIA A10 data sheet and product brief"),
    Gpu("RTX 3090", "sm_86", 936, 82, 1695, "NVIDIA GA102 white paper"),
    Gpu("L4", "sm_89", 300, 58, 2040, "NVIDIA L4 data sheet and product brief"),
    Gpu("L40S", "sm_89", 864, 142, 2520, "NVIDIA L40S data sheet and product brief"),
    Gpu("RTX 4090", "sm_89", 1008, 128, 2520, "NVIDIA Ada architecture white paper"),
    Gpu("H100 SXM", "sm_90", 3350, 132, 1980, "NVIDIA H100 data sheet (67 TFLOP/s float32 gives the clock)"),
    Gpu("H200", "sm_90", 4800, 132, 1980, "NVIDIA H200 data sheet (67 TFLOP/s float32 gives the clock)"),
    Gpu("B200", "sm_100", 8000, 148, 1965, "NVIDIA HGX B200 data sheet (8 TB/s; 37 TFLOP/s float64)"),
    Gpu("RTX 5090", "sm_120", 1792, 170, 2407, "NVIDIA RTX Blackwell architecture white paper"),
    Gpu("MI300X", "gfx942", 5300, 304, 2100, "AMD Instinct MI300X data sheet"),
    Gpu("RX 7900 XTX", "gfx1100", 960, 96, 2500, "AMD Radeon RX 7900 XTX specifications"),
)
