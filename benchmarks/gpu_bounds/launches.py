"""Records the launches that the operations' launchers make, in every variant that is used.

The launchers of `fedtlu_fast.kernels` run as they are, on tensors in the CPU's memory, but Triton's `run`
only notes the arguments: so block sizes, flags and options cannot differ from those of a real launch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from triton.runtime.jit import JITFunction

from fedtlu_fast.kernels import (
    accumulate,
    aggregate,
    columns,
    device,
    distances_from,
    layer_stats,
    masked_apply,
    merge,
    tiles,
)
from fedtlu_fast.kernels.device import FAST_FLOAT64, FAST_FLOAT64_AMD
from fedtlu_fast.kernels.pairs import VARIABLE
from gpu_bounds.targets import Architecture

CLIENTS = 10
"""How many clients an aggregation of the table has."""
COHORTS = (10, 32, 100)
"""Numbers of clients whose medians and trimmed means are computed."""
MANY = 200
"""More clients than are sorted in registers."""
TRIM = 10
"""One client of so many is trimmed at either end."""
_TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float64: "fp64",
    torch.int32: "i32",
    torch.int64: "i64",
}
_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg", "enable_fp_fusion")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class Launch:
    """What Triton needs to compile a kernel as for one launch.

    Attributes:
        kernel: the kernel.
        signature: the type of each argument.
        constants: the values of its constant arguments.
        attributes: the arguments that are multiples of 16.
        options: for the compiler.
    """

    kernel: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    attributes: dict[tuple[int], list[list[Any]]]
    options: tuple[tuple[str, Any], ...]

    @property
    def warps(self) -> int:
        """Returns the number of warps of a program."""
        return int(dict(self.options)["num_warps"])


@dataclass(frozen=True)
class Variant:
    """One row of the table: an operation with dtypes and flags.

    Attributes:
        op, dtype, flags: its names; the dtype is that of the vectors that are read.
        launch: the launch of its main kernel.
        vectors: of each kind of vector that the kernel reads or writes, the bytes of an element, and whether
            it is known to lie on 16 bytes where a tile begins.
        elements: of a whole tile.
        read, written: bytes for each element of a tile.
        step: elements of one turn of the kernel's loop, 0 if the kernel has none.
        turn: bytes for each element of a step in one turn.
        turns: of the loop in a whole tile; 0 if it covers the elements that are not loaded before it.
        table: bytes that a turn reads from the table of clients.
        spared: of the bytes of a turn, or of a tile without a loop, those that the memory does not move:
            several programs read them side by side, or a mask leaves them out.
        added: numbers for each element that are added in float64 behind branches, and so not on the path.
    """

    op: str
    dtype: str
    flags: str
    launch: Launch
    vectors: tuple[tuple[int, bool], ...]
    elements: int
    read: int
    written: int
    step: int = 0
    turn: int = 0
    turns: int = 0
    table: int = 0
    spared: int = 0
    added: int = 0

    def widths(self, threads: int) -> frozenset[int]:
        """Returns the bytes of the accesses that a program of so many threads can make to its vectors."""
        each = (self.step or self.elements) / threads
        return frozenset(min(16, int(each * size)) if aligned else size for size, aligned in self.vectors)


def sums_of(architecture: Architecture) -> str:
    """Returns how a device of this architecture keeps its sums: as "float64" or "pairs" of float32."""
    arch = architecture.arch
    fast = arch in FAST_FLOAT64_AMD if isinstance(arch, str) else divmod(arch, 10) in FAST_FLOAT64
    return "float64" if fast else "pairs"


@contextmanager
def _launched_on(architecture: Architecture, sums: str) -> Iterator[None]:
    """Launchers choose inside of the context as on this architecture, with sums that are kept so."""
    patched = patch.object(device, "warp_size", lambda _: architecture.warp)
    with patch.dict(os.environ, {VARIABLE: sums}), patched:
        yield


def variants(architecture: Architecture, sums: str) -> Iterator[Variant]:
    """Makes every variant that is launched on a GPU that keeps its sums so (`sums_of`)."""
    with _launched_on(architecture, sums):
        yield from _variants()


def _variants() -> Iterator[Variant]:
    for dtype in DTYPES:
        yield _layer_stats(dtype)
        for based in (True, False):
            for stats in (False, True):
                for aligned in (True, False) if stats else (True,):
                    yield _accumulate(dtype, based, stats, aligned)
            for each in (False, True):
                for aligned in (True, False):
                    yield _aggregate(dtype, based, each, aligned)
        for aligned in (True, False):
            yield _masked_apply(dtype, aligned)
    for clients in COHORTS:
        for trimmed in (False, True):
            yield _sorted_mean(clients, trimmed)
    for clients in (1, CLIENTS):
        for centred in (False, True):
            yield _squared_distances_from(clients, centred)


def unbounded(architecture: Architecture, sums: str) -> Iterator[tuple[str, str, Launch]]:
    """Makes the launches that have no row of bounds: they read little, or what a cache holds.

    Yields:
        The operation, a name, and the launch.
    """
    with _launched_on(architecture, sums):
        yield from _merges()
        yield from _runs()


def _merges() -> Iterator[tuple[str, str, Launch]]:
    sizes = merge.MERGE_LANES[os.environ[VARIABLE] == "pairs"]
    for lanes, warps in zip(sizes, merge.MERGE_WARPS, strict=True):
        size = tiles.TILE_BYTES // 4 * lanes
        change = torch.empty(size, dtype=torch.float32)
        moments = torch.empty(5, 1, dtype=torch.float64)
        recorded = _recorded(lambda: layer_stats.layer_moments(change, _whole(size), moments))  # noqa: B023
        launch = recorded[-1]
        if (launch.constants["LANES"], launch.warps) != (lanes, warps):
            raise RuntimeError("the launcher chose another size of the merge")
        yield "merge", f"merge of {lanes} tiles a turn", launch


def _runs() -> Iterator[tuple[str, str, Launch]]:
    """The launches for more clients than registers hold, each kernel and its variants once."""
    seen = set()
    for launch in _recorded(_sorting(MANY, True)[1]):
        mirror = launch.constants.get("MIRROR")
        name = launch.kernel.__name__.removesuffix("_kernel").replace("_", " ")
        layers = "" if mirror is None else f", {launch.constants['LAYERS'] + mirror} layers"
        if name + layers not in seen:
            seen.add(name + layers)
            yield "sorted_mean", f"{MANY} clients, {name}{layers}", launch


def _layer_stats(dtype: torch.dtype) -> Variant:
    elements = tiles.TILE_BYTES // dtype.itemsize
    change = _vector(elements, dtype)
    moments = torch.empty(5, 1, dtype=torch.float64)
    launch = _recorded(lambda: layer_stats.layer_moments(change, _whole(elements), moments))[0]
    step = launch.constants["ROWS"] * launch.constants["WIDTH"]
    size = dtype.itemsize
    return Variant("layer_stats", _TYPES[dtype], "", launch, ((size, True),), elements, size, 0, step, size)


def _accumulate(dtype: torch.dtype, based: bool, stats: bool, aligned: bool) -> Variant:
    elements = accumulate.MOMENTS_BLOCK if stats else accumulate.BLOCK
    target = _vector(elements, _target(dtype), aligned)
    client, base = _vector(elements, dtype), _vector(elements, dtype) if based else None
    if stats:
        run = lambda: accumulate.accumulate_moments(target, client, base, 0.1, _whole(elements))  # noqa: E731
    else:
        run = lambda: accumulate.accumulate(target, client, base, 0.1)  # noqa: E731
    flags = _flags(base=based, stats=stats, unaligned=not aligned)
    read = target.element_size() + dtype.itemsize * (1 + based)
    launch = _recorded(run)[0]
    wide, size = target.element_size(), dtype.itemsize
    vectors = ((wide, aligned), (size, aligned))
    return Variant("accumulate_", _TYPES[dtype], flags, launch, vectors, elements, read, wide)


def _aggregate(dtype: torch.dtype, based: bool, each: bool, aligned: bool) -> Variant:
    most = aggregate.BLOCK_WITH_CLIENTS
    out = _vector(most, _target(dtype), aligned)
    clients = [_vector(most, dtype) for _ in range(CLIENTS)]
    base = _vector(most, dtype) if based else None
    weights = torch.full((CLIENTS,), 1 / CLIENTS, dtype=torch.float64)
    launch = _recorded(lambda: aggregate.aggregate(out, clients, weights, base, _whole(most), each))[0]
    elements = launch.constants["BLOCK"]
    flags = _flags(base=based, clients_stats=each, unaligned=not aligned)
    size = dtype.itemsize
    read = size * (CLIENTS + based)
    wide = out.element_size()
    names = ("aggregate", _TYPES[dtype], flags)
    vectors = ((wide, aligned), (size, aligned))
    return Variant(*names, launch, vectors, elements, read, wide, elements, size, CLIENTS, table=16)


def _masked_apply(dtype: torch.dtype, aligned: bool) -> Variant:
    elements = tiles.TILE_BYTES // dtype.itemsize
    params, delta = _vector(elements, _target(dtype), aligned), _vector(elements, dtype)
    launch = _recorded(lambda: masked_apply.masked_apply(params, delta, _whole(elements), 1.0))[0]
    wide, size = params.element_size(), dtype.itemsize
    step = launch.constants["BLOCK"]
    names = ("masked_apply_", _TYPES[dtype], _flags(unaligned=not aligned))
    moved = (wide + size, wide)
    vectors = ((wide, aligned), (size, True))
    return Variant(*names, launch, vectors, elements, *moved, step, sum(moved))


def _sorted_mean(count: int, trimmed: bool) -> Variant:
    """A trimmed mean, or the median; of an even number, the middle two are averaged."""
    kept, run = _sorting(count, trimmed)
    launch = _recorded(run)[0]
    elements, rows = launch.constants["BLOCK"], launch.constants["ROWS"]
    names = ("sorted_mean", "fp32", _flags(trimmed=trimmed, base=True) + f" {count} clients")
    spared = 4 * (rows - count)  # rows behind the clients
    moved = 4 * (rows + 1)
    added = kept if trimmed else 0
    return Variant(*names, launch, ((4, True),), elements, moved, 4, spared=spared, added=added)


def _sorting(count: int, trimmed: bool) -> tuple[int, Callable[[], None]]:
    """Returns how many clients are averaged, and the call."""
    size = 16 * columns.THREADS
    clients = [_vector(size, torch.float32) for _ in range(count)]
    out, base = _vector(size, torch.float32), _vector(size, torch.float32)
    cut = count // TRIM
    places = (cut, count - cut) if trimmed else ((count - 1) // 2, count // 2 + 1)
    return places[1] - places[0], lambda: columns.sorted_mean(out, clients, base, *places)


def _squared_distances_from(count: int, centred: bool) -> Variant:
    size = distances_from.SPAN
    clients = [_vector(size, torch.float32) for _ in range(count)]
    base, centre = _vector(size, torch.float32), _vector(size, torch.float32) if centred else None
    launch = _recorded(lambda: distances_from.squared_distances_from(clients, base, centre))[0]
    group, step = launch.constants["GROUP"], launch.constants["LANES"]
    shared = 4 * (1 + centred)
    turn = 4 * group + shared
    flags = _flags(centre=centred) + f" {count} client{'s' * (count > 1)}"
    names = ("squared_distances_from", "fp32", flags.strip())
    spared = shared if count > group else 0  # the groups of a tile share base and centre
    return Variant(*names, launch, ((4, True),), size, turn, 0, step, turn, spared=spared)


def _recorded(run: Callable[[], object]) -> list[Launch]:
    """Returns the launches that a function makes."""
    found: list[Launch] = []

    def note(kernel: Any, *arguments: Any, grid: object, warmup: bool, **named: Any) -> None:
        options = tuple((key, named.pop(key)) for key in _OPTIONS if key in named)
        given = dict(zip(kernel.arg_names, arguments, strict=False)) | named
        signature, constants, attributes = {}, {}, {}
        for at, parameter in enumerate(kernel.params):
            value = given[parameter.name]
            if parameter.is_constexpr:
                signature[parameter.name], constants[parameter.name] = "constexpr", value
                continue
            pointer = isinstance(value, Tensor)
            signature[parameter.name] = f"*{_TYPES[value.dtype]}" if pointer else "i32"
            specialized = pointer or not parameter.do_not_specialize
            if specialized and (value.data_ptr() if pointer else value) % 16 == 0:
                attributes[(at,)] = [["tt.divisibility", 16]]
        found.append(Launch(kernel, signature, constants, attributes, options))

    with patch.object(JITFunction, "run", note):
        run()
    return found


def _vector(size: int, dtype: torch.dtype, aligned: bool = True) -> Tensor:
    """Returns memory of which every element's address is a multiple of 16, or is one element behind it."""
    lead = 16 // dtype.itemsize
    memory = torch.empty(size + 2 * lead, dtype=dtype)
    start = -(memory.data_ptr() // dtype.itemsize) % lead
    return memory[start + (not aligned) :][:size]


def _target(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _whole(size: int) -> tiles.Layers:
    return tiles.Layers(np.array([0]), np.array([size]))


def _flags(**given: bool) -> str:
    return " ".join(name for name, on in given.items() if on)
