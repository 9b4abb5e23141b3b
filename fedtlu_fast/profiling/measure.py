"""Measuring: every method in turn, over and over, in one process; medians of what each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.ops import checks, dispatch
from fedtlu_fast.profiling.rivals import RIVALS
from fedtlu_fast.profiling.shapes import SHAPES, random_change
from fedtlu_fast.scoring import score_layers
from fedtlu_fast.stats import layer_stats

OPS = ("layer_stats", "accumulate_", "masked_apply_")


@dataclass(frozen=True)
class Row:
    """One method on one shape.

    Attributes:
        op: operation.
        shape: model.
        dtype: of the change.
        layers: L.
        parameters: P.
        method: ``fedtlu BACKEND`` or a rival.
        ms: median milliseconds.
        gb_per_s: least bytes that must move, over the time; GB = 1e9 bytes.
        share_of_floor: against the bandwidth measured in the same run (read, or copy for the updates).
        speedup: over the fastest rival of the same op and shape; None for rivals.
        worst_error: of |mean|/std against float64 (layer_stats), of an element (updates).
        misranked: groups of like layers whose order differs from float64's; None for the updates.
        groups: how many there are.
    """

    op: str
    shape: str
    dtype: str
    layers: int
    parameters: int
    method: str
    ms: float
    gb_per_s: float
    share_of_floor: float
    speedup: float | None
    worst_error: float
    misranked: int | None
    groups: int


def bandwidth(device: str, repeats: int = 7) -> dict[str, float]:
    """Bytes per second that this machine reads (a sum) and copies (read and write), the best of several."""
    source = torch.ones(1 << 26, device=device)
    target = torch.empty_like(source)
    size = source.numel() * source.element_size()
    times = interleaved({"read": source.sum, "copy": partial(target.copy_, source)}, device, repeats)
    return {"read": size / min(times["read"]), "copy": 2 * size / min(times["copy"])}


def interleaved(
    methods: Mapping[str, Callable[[], object]], device: str, repeats: int
) -> dict[str, list[float]]:
    """Seconds of every call; after one call each to warm up, all methods in turn, `repeats` times."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(repeats + 1):
        for name, method in methods.items():
            _wait(device)
            start = time.perf_counter()
            method()
            _wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def profile(
    shapes: Sequence[str],
    ops: Sequence[str],
    backends: Sequence[str],
    device: str,
    repeats: int,
    speeds: Mapping[str, float],
) -> Iterator[Row]:
    """Rows of every op, shape and method, the accuracy first: a number without it would mean nothing.

    Args:
        shapes: names of `SHAPES`.
        ops: some of `OPS`; the updates are left out for shapes in 16 bits, which they do not take.
        backends: whose operations to measure.
        device: where.
        repeats: timed calls of each method.
        speeds: of `bandwidth`, from the same process.

    Raises:
        InputError: a shape does not fit in the memory.
        BackendUnavailableError: a backend cannot run on this device.
    """
    for shape in shapes:
        model = SHAPES[shape]
        layout = model.layout()
        change = random_change(layout, model.dtype, device)
        for op in ops:
            if op != "layer_stats" and model.dtype not in checks.UPDATE_DTYPES:
                continue
            case = _CASES[op](change, layout, backends)
            speed = speeds["read" if op == "layer_stats" else "copy"]
            yield from _rows(case, op, shape, change, layout, speed, repeats)


@dataclass(frozen=True)
class _Case:
    """Methods of one op on one change: what they run, how wrong they are, and the bytes they must move."""

    methods: dict[str, Callable[[], object]]
    accuracy: dict[str, tuple[float, int | None]]
    bytes: int


def _rows(
    case: _Case, op: str, shape: str, change: Tensor, layout: ParameterLayout, speed: float, repeats: int
) -> Iterator[Row]:
    times = interleaved(case.methods, change.device.type, repeats)
    medians = {name: median(values) for name, values in times.items()}
    rivals = [value for name, value in medians.items() if not name.startswith("fedtlu")]
    for name, seconds in medians.items():
        error, misranked = case.accuracy[name]
        ours = name.startswith("fedtlu")
        yield Row(
            op=op,
            shape=shape,
            dtype=str(change.dtype).removeprefix("torch."),
            layers=len(layout.layers),
            parameters=layout.size,
            method=name,
            ms=1e3 * seconds,
            gb_per_s=case.bytes / seconds / 1e9,
            share_of_floor=case.bytes / speed / seconds,
            speedup=min(rivals) / seconds if ours and rivals else None,
            worst_error=error,
            misranked=misranked,
            groups=len(layout.groups),
        )


def _stats_cases(change: Tensor, layout: ParameterLayout, backends: Sequence[str]) -> _Case:
    layers = list(layout.views(change).values())
    oracle = torch.stack([excess_in_float64(layer) for layer in layers]).cpu()

    def ours(backend: str) -> Tensor:
        return score_layers(layer_stats(change, layout, backend=backend)).excess

    finders: dict[str, Callable[[], Tensor]] = {f"fedtlu {name}": partial(ours, name) for name in backends}
    finders |= {
        name: partial(rival, layers)
        for name, rival in RIVALS.items()
        if change.device.type == "cpu" or name != "numpy loop"
    }
    accuracy: dict[str, tuple[float, int | None]] = {}
    for name, find in finders.items():
        excess = find().cpu()
        error = (excess.clamp(min=0).sqrt() - oracle.sqrt()).abs().max()
        accuracy[name] = float(error), misranked(excess, oracle, layout)
    return _Case(dict(finders), accuracy, change.numel() * change.element_size())


def _accumulate_cases(change: Tensor, layout: ParameterLayout, backends: Sequence[str]) -> _Case:
    base, start = change + 1, torch.full_like(change, 0.5)
    expected = start.double() + 0.25 * (change.double() - base.double())

    def by_torch(aggregate: Tensor) -> None:
        aggregate.add_(change - base, alpha=0.25)

    def ours(aggregate: Tensor, backend: str) -> None:
        dispatch.accumulate_(aggregate, change, base, 0.25, backend)

    updates: dict[str, Callable[[Tensor], None]] = {
        **{f"fedtlu {name}": partial(ours, backend=name) for name in backends},
        "torch add_": by_torch,
    }
    return _update_case(updates, start, expected, 4 * change.numel() * change.element_size())


def _apply_cases(change: Tensor, layout: ParameterLayout, backends: Sequence[str]) -> _Case:
    mask = torch.arange(len(layout.layers)) % 3 == 0
    chosen = [layer for layer, wanted in zip(layout.layers, mask.tolist(), strict=True) if wanted]
    start = torch.full_like(change, 0.5)
    expected = start.double()
    for layer in chosen:
        place = slice(layer.offset, layer.offset + layer.numel)
        expected[place] += change[place].double()
    moved = sum(layer.numel for layer in chosen)

    def by_torch(params: Tensor) -> None:
        for layer in chosen:
            place = slice(layer.offset, layer.offset + layer.numel)
            params[place].add_(change[place])

    def ours(params: Tensor, backend: str) -> None:
        dispatch.masked_apply_(params, change, layout.offsets, mask, 1.0, backend)

    updates: dict[str, Callable[[Tensor], None]] = {
        **{f"fedtlu {name}": partial(ours, backend=name) for name in backends},
        "torch loop": by_torch,
    }
    return _update_case(updates, start, expected, 3 * moved * change.element_size())


def _update_case(
    updates: Mapping[str, Callable[[Tensor], None]], start: Tensor, expected: Tensor, size: int
) -> _Case:
    accuracy: dict[str, tuple[float, int | None]] = {}
    for name, update in updates.items():
        result = start.clone()
        update(result)
        accuracy[name] = float((result.double() - expected).abs().max()), None
    scratch = start.clone()
    return _Case({name: partial(update, scratch) for name, update in updates.items()}, accuracy, size)


_CASES: dict[str, Callable[[Tensor, ParameterLayout, Sequence[str]], _Case]] = {
    "layer_stats": _stats_cases,
    "accumulate_": _accumulate_cases,
    "masked_apply_": _apply_cases,
}


def excess_in_float64(layer: Tensor) -> Tensor:
    """(mean/std)^2 of one layer, the oracle: scalar, float64."""
    wide = layer.double()
    return (wide.mean() / wide.std(correction=0)).square()


def misranked(excess: Tensor, oracle: Tensor, layout: ParameterLayout) -> int:
    """Groups of like layers that `excess` [L] orders unlike `oracle` [L]; `layout` is by tensors."""
    wrong = 0
    for group in layout.groups:
        layers = [layout.blocks[block].layers[0] for block in group.blocks]
        found, true = (torch.argsort(x[layers], descending=True, stable=True) for x in (excess, oracle))
        wrong += int(not torch.equal(found, true))
    return wrong


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
