"""Reads disassembled kernels: instructions by kind, the path of a whole tile, and the main loop on it.

NVIDIA's code is what `nvdisasm -c` prints, AMD's is LLVM's assembly text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

WIDE = 16
"""The bytes of the widest load."""

# What runs where. "alu" is integer arithmetic, logic, comparison, minimum and selection; "imad" is integer
# multiply-add, which NVIDIA runs on the float32 unit; "convert" is from and to float64, "special" other
# conversions and reciprocals; "shared" is shared memory and shuffles.
_NVIDIA_KINDS = (
    ("convert", r"F2F\.(\w+\.)*F64|F2F\.F64|F2I\.\S*F64|I2F\.\S*F64"),
    ("special", r"F2F|F2FP|F2I|I2F|I2FP|FRND|MUFU"),
    ("f64", r"D(ADD|MUL|FMA|SETP|MNMX)\b"),
    ("f32", r"F(ADD|MUL|FMA)(2|32I)?\b|H(ADD|MUL|FMA)2"),
    ("imad", r"IMAD|IDP"),
    ("shared", r"SHFL|LDS|STS|ATOMS|REDUX|LDSM"),
    ("memory", r"LDG|STG|LD\b|ST\b|LDL|STL|LDC|ULDC|RED\b|ATOM"),
    (
        "control",
        r"BRA|EXIT|BSSY|BSYNC|BAR|CALL|RET|NOP|WARPSYNC|BREAK|YIELD|DEPBAR|ERRBAR|MEMBAR|BMOV|CCTL|ACQ",
    ),
)
_AMD_KINDS = (
    ("convert", r"v_(dual_)?cvt_\w*f64|v_(rcp|rsq|sqrt)_f64|v_div_\w+_f64|v_(ldexp|frexp\w*|trig\w*)_f64"),
    ("f64", r"v_\w+_f64"),
    ("f32", r"v_(dual_|pk_)?(add|sub|subrev|mul|fma|fmac|fmaak|fmamk|mac|mad)_(legacy_)?(f32|f16)"),
    ("alu", r"v_"),
    ("shared", r"ds_"),
    ("memory", r"(global|buffer|flat|scratch)_"),
    ("scalar", r"s_"),
)
_PAIRED = re.compile(r"F(ADD|MUL|FMA)2\b|v_pk_")
_NVIDIA_LINE = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@(!?\w+)\s+)?([A-Z][\w.]*)\s*([^;]*);")
_NVIDIA_LABEL = re.compile(r"^(\.L_x_\d+):")
_NVIDIA_WIDTH = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
_AMD_WIDTH = {
    "ubyte": 1,
    "u8": 1,
    "ushort": 2,
    "short": 2,
    "u16": 2,
    "i16": 2,
    "dword": 4,
    "b8": 1,
    "byte": 1,
    "b16": 2,
    "b32": 4,
    "b64": 8,
    "b96": 12,
    "b128": 16,
    "dwordx2": 8,
    "dwordx3": 12,
    "dwordx4": 16,
}


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        opcode: its name with suffixes.
        kinds: how many operations of each kind a thread does; two for packed or dual instructions.
        loaded, stored: bytes of global memory per thread.
        target: the label that it may jump to.
        falls: whether the next instruction may follow.
        leaves: whether it may end the kernel.
    """

    opcode: str
    kinds: tuple[str, ...]
    loaded: int = 0
    stored: int = 0
    target: str | None = None
    falls: bool = True
    leaves: bool = False


@dataclass
class Counts:
    """What a piece of code does, per thread.

    Attributes:
        issued: instructions; on AMD, vector instructions.
        kinds: operations of each kind.
        loads, stores: how many loads and stores of each width in bytes.
    """

    issued: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    loads: Counter[int] = field(default_factory=Counter)
    stores: Counter[int] = field(default_factory=Counter)

    def add(self, other: Counts, times: float = 1) -> Counts:
        """Returns these counts and `times` the others."""
        total = Counts(self.issued)
        total.issued += other.issued * times  # type: ignore[assignment]
        for name in ("kinds", "loads", "stores"):
            mine, theirs = getattr(self, name), getattr(other, name)
            summed = Counter({key: mine[key] + times * theirs[key] for key in {*mine, *theirs}})
            setattr(total, name, summed)
        return total


def parse(text: str, amd: bool) -> tuple[list[Instruction], dict[str, int]]:
    """Returns the instructions, and the index of the instruction behind each label."""
    found: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        label = re.match(r"^(\.LBB\d+_\d+):", line) if amd else _NVIDIA_LABEL.match(line)
        if label:
            labels[label[1]] = len(found)
            continue
        made = _amd(line) if amd else _nvidia(line)
        if made is not None:
            found.append(made)
        if amd and line.startswith(".Lfunc_end0"):
            break
    if not found:
        raise ValueError("no instructions in the disassembly: its format is new")
    return found, labels


@cache
def _kind(opcode: str, amd: bool) -> str:
    for kind, pattern in _AMD_KINDS if amd else _NVIDIA_KINDS:
        if re.match(pattern, opcode):
            return kind
    return "uniform" if opcode.startswith("U") else "alu"


def _nvidia(line: str) -> Instruction | None:
    match = _NVIDIA_LINE.search(line)
    if not match:
        return None
    predicate, opcode, operands = match.groups()
    name, *suffixes = opcode.split(".")
    kind = _kind(opcode, False)
    width = next((_NVIDIA_WIDTH[suffix] for suffix in suffixes if suffix in _NVIDIA_WIDTH), 4)
    target, falls = None, True
    if name in ("BRA", "CALL"):  # a call of a label within the kernel is a jump; other calls come back
        label = re.search(r"`\((\.L_x_\d+)\)", operands)
        target = label[1] if label else None
        # Conditions stand before the instruction or before the label.
        falls = target is None or predicate is not None or not operands.strip().startswith("`")
    elif name in ("EXIT", "RET"):
        falls = predicate is not None
    return Instruction(
        opcode,
        (kind, kind) if _PAIRED.match(opcode) else (kind,),
        width if name == "LDG" else 0,
        width if name == "STG" else 0,
        target,
        falls,
        name == "EXIT",
    )


def _amd(line: str) -> Instruction | None:
    match = re.match(r"^\t([a-z]\w+)\s*([^;]*)", line)
    if not match:
        return None
    opcode, operands = match.groups()
    parts = [opcode, *re.findall(r"::\s*(v_dual_\w+)", operands)]
    kinds = tuple(_kind(part, True) for part in parts)
    if _PAIRED.match(opcode):
        kinds *= 2
    access = re.match(r"(?:global|buffer|flat|scratch)_(load|store)_(?:d16_(?:hi_)?)?(\w+)", opcode)
    width = _AMD_WIDTH.get(access[2], 0) if access else 0
    jump = re.match(r"\.LBB\d+_\d+", operands) if opcode.startswith(("s_cbranch", "s_branch")) else None
    return Instruction(
        opcode,
        kinds,
        width if access and access[1] == "load" else 0,
        width if access and access[1] == "store" else 0,
        jump[0] if jump else None,
        opcode not in ("s_branch", "s_endpgm", "s_setpc_b64"),
        opcode == "s_endpgm",
    )


def count(instructions: Iterable[Instruction], amd: bool) -> Counts:
    """Adds up instructions."""
    total = Counts()
    for one in instructions:
        vector = not amd or one.opcode.startswith("v_")
        total.issued += vector
        total.kinds.update(one.kinds)
        if one.loaded:
            total.loads[one.loaded] += 1
        if one.stored:
            total.stores[one.stored] += 1
    return total
