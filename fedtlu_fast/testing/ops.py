"""Compares a backend's operations with float64, on random vectors of layers of odd sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.ops import dispatch, reference
from fedtlu_fast.ops.backends import resolve
from fedtlu_fast.ops.checks import STATS_DTYPES, TARGETS
from fedtlu_fast.ops.moments import Moments
from fedtlu_fast.randomness import generator

LENGTHS = (1, 0, 2, 3, 31, 63, 0, 257, 1021, 4099, 20_011)
"""Elements of the layers that every comparison has; five more layers have random lengths."""
CLIENTS = 5
RATIO = 1e-8
"""The largest absolute error of mean / std, which docs/concepts/numerics.md promises."""
PLACES = 2.0
"""The largest distance from float64, in numbers of float32, of a sum that is kept in pairs of float32."""
SQUARES = 1e-9
"""The largest relative error of a sum of squared deviations."""
NORMS = 2e-7
"""The largest relative error of a client's squared norm; a backend may round the change to float32 first."""


@dataclass(frozen=True)
class Deviation:
    """Holds the largest deviation of one result of an operation from float64.

    Attributes:
        backend: the name of the backend.
        device: the type of the device that it ran on.
        op: the operation, such as ``accumulate_``.
        result: which of its results is meant, and in which unit.
        worst: the largest error; infinity where one number is NaN and the other is not.
        allowed: the largest error that the operation may have.
    """

    backend: str
    device: str
    op: str
    result: str
    worst: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the error is allowed."""
        return self.worst <= self.allowed


def compare_backend(backend: str, device: str = "cpu", seed: int = 0) -> list[Deviation]:
    """Compares the results of a backend's operations with the reference on float64 copies of its input.

    The operations are `layer_stats`, `accumulate_`, `aggregate` and `masked_apply_`, each with every dtype
    that it takes. The layers have odd sizes and starts; one is constant, and some hold NaN or Inf.

    Args:
        backend: the name of a backend, such as ``native``; ``auto`` for the fastest live one.
        device: the device type of the tensors, such as ``cpu`` or ``cuda``.
        seed: the seed of the input; the same seed gives the same input on every machine.

    Returns:
        One `Deviation` for every result of every operation, each the worst over all dtypes.

    Raises:
        BackendUnavailableError: The backend cannot run on this device here.
        InputError: There is no backend of that name.
    """
    resolve(backend, device)
    worst: dict[tuple[str, str], tuple[float, float]] = {}
    for dtype in STATS_DTYPES:
        inputs = _Inputs(dtype, torch.device(device), generator(seed, f"compare_backend {dtype}"))
        for op, result, error, allowed in _errors(inputs, backend):
            before, most = worst.get((op, result), (0.0, allowed))
            worst[op, result] = max(before, error), max(most, allowed)
    return [Deviation(backend, device, *names, *errors) for names, errors in worst.items()]


class _Inputs:
    """Draws the vectors of one dtype."""

    def __init__(self, dtype: torch.dtype, device: torch.device, draws: np.random.Generator) -> None:
        self.dtype, self.draws = dtype, draws
        self.device = torch.empty(0, device=device).device  # with its index
        self.wide = TARGETS[dtype]
        lengths = [*LENGTHS, *draws.integers(1, 2000, 5).tolist()]
        draws.shuffle(lengths)
        self.offsets = torch.tensor([0, *lengths]).cumsum(0)
        self.mask = torch.from_numpy(draws.random(len(lengths)) < 0.5)
        self.mask[: len(lengths) // 2 : 3] = True

    def vector(self, dtype: torch.dtype | None = None, odd: bool = False) -> Tensor:
        """Returns a vector that starts inside of its memory, away from the borders of a SIMD register.

        Args:
            dtype: None stands for the dtype of the inputs.
            odd: whether one layer is constant, and some hold NaN or Inf.
        """
        size = int(self.offsets[-1])
        numbers = self.draws.normal(self.draws.uniform(-0.5, 0.5), 1.0, size) * 10 ** self.draws.uniform(
            -2, 1
        )
        if odd:
            start, end = self._bounds(1021)
            numbers[start:end] = numbers[start]
            start, end = self._bounds(257)
            numbers[self.draws.integers(start, end, 3)] = math.nan, math.inf, -math.inf
            start, end = self._bounds(4099)
            numbers[self.draws.integers(start, end)] = math.inf
        memory = torch.empty(size + 1, dtype=dtype or self.dtype, device=self.device)
        memory[1:] = torch.from_numpy(numbers).to(memory.dtype)
        return memory[1:]

    def _bounds(self, length: int) -> tuple[int, int]:
        """Returns the start and the end of the layer that has this length."""
        at = int(torch.nonzero(self.offsets.diff() == length)[0])
        return int(self.offsets[at]), int(self.offsets[at + 1])


def _errors(inputs: _Inputs, backend: str) -> Iterator[tuple[str, str, float, float]]:
    """Runs every operation; yields its name, the result, the error and the largest allowed error."""
    # Only the Triton backend keeps sums in pairs, on some GPUs; all others have the bits of float64.
    use_pairs = getattr(resolve(backend, inputs.device.type), "use_pairs", lambda dtype, device: False)
    allowed_places = PLACES if use_pairs(inputs.wide, inputs.device) else 0.0
    for op, run in _RUNS.items():
        found, true, moments = run(inputs, backend)
        if found is not None and true is not None:
            yield op, "elements, in last places", _last_places(found, true), allowed_places
        for given, exact in moments:
            for result, error, allowed in _moment_errors(given, exact):
                yield op, result, error, allowed
    yield "aggregate", "squared norms of clients, relative", _norm_error(inputs, backend), NORMS


_Ran = tuple[Tensor | None, Tensor | None, list[tuple[Moments, Moments]]]
"""What an operation wrote, what it should have written, and the same of its moments."""


def _layer_stats(inputs: _Inputs, backend: str) -> _Ran:
    delta = inputs.vector(odd=True)
    found = dispatch.layer_stats(delta, inputs.offsets, backend)
    return None, None, [(found, _true_moments(delta, inputs))]


def _accumulate(inputs: _Inputs, backend: str) -> _Ran:
    aggregate, client, base = inputs.vector(inputs.wide), inputs.vector(odd=True), inputs.vector()
    weight = float(inputs.draws.uniform(0, 1))
    wide = _exact(aggregate)
    reference.accumulate_(wide, _exact(client), _exact(base), weight)
    found = dispatch.accumulate_(aggregate, client, base, weight, backend, offsets=inputs.offsets)
    return aggregate, wide.to(inputs.wide), [(found, _true_moments(aggregate, inputs))]


def _aggregate(inputs: _Inputs, backend: str) -> _Ran:
    clients, base = [inputs.vector(odd=index == 1) for index in range(CLIENTS)], inputs.vector()
    weights = torch.from_numpy(inputs.draws.dirichlet(np.ones(CLIENTS)))
    wide, copies = _exact(base), [_exact(client) for client in clients]
    reference.aggregate(wide, copies, weights, _exact(base), inputs.offsets, client_stats=False)
    out, moments, each = dispatch.aggregate(
        clients, weights, inputs.offsets, base=base, client_stats=True, backend=backend
    )
    assert each is not None  # since client_stats
    pairs = [(moments, _true_moments(out, inputs))]
    for index, client in enumerate(copies):
        row = Moments(each.rows[:, index])
        pairs.append((row, _true_moments((client - _exact(base)).to(inputs.wide), inputs)))
    return out, wide.to(inputs.wide), pairs


def _norm_error(inputs: _Inputs, backend: str) -> float:
    """Returns the largest relative error of the norms of clients."""
    clients, base = [inputs.vector(), inputs.vector(odd=True)], inputs.vector()
    weights, copies = torch.ones(2), [_exact(client) for client in clients]
    _, _, found = dispatch.aggregate(
        clients, weights, inputs.offsets, base=base, client_stats="norms", backend=backend
    )
    exact = reference.aggregate(_exact(base), copies, weights, _exact(base), inputs.offsets, "norms")[1]
    if not isinstance(exact, Tensor):
        raise TypeError("norms are a tensor")
    scale = torch.where(exact == 0, 1.0, exact)
    return _apart(found.cpu() / scale, exact / scale)


def _masked_apply(inputs: _Inputs, backend: str) -> _Ran:
    params, delta = inputs.vector(inputs.wide, odd=True), inputs.vector(odd=True)
    lr = float(inputs.draws.uniform(0, 2))
    wide = _exact(params)
    reference.masked_apply_(wide, _exact(delta), inputs.offsets, inputs.mask, lr)
    dispatch.masked_apply_(params, delta, inputs.offsets, inputs.mask, lr, backend)
    return params, wide.to(inputs.wide), []


_RUNS = {
    "layer_stats": _layer_stats,
    "accumulate_": _accumulate,
    "aggregate": _aggregate,
    "masked_apply_": _masked_apply,
}


def _exact(tensor: Tensor) -> Tensor:
    """Returns a float64 copy on the CPU, which holds the same numbers."""
    return tensor.to("cpu", torch.float64, copy=True)


def _true_moments(tensor: Tensor, inputs: _Inputs) -> Moments:
    return reference.layer_stats(_exact(tensor), inputs.offsets)


def _moment_errors(found: Moments, true: Moments) -> Iterator[tuple[str, float, float]]:
    """Yields the name of a result, its error and the largest allowed error."""
    here = Moments(found.rows.cpu())
    spread = true.m2 != 0
    exact = [_apart(getattr(here, name), getattr(true, name)) for name in ("count", "abs_max", "nonfinite")]
    exact += [_apart(getattr(here, name)[~spread], getattr(true, name)[~spread]) for name in ("mean", "m2")]
    yield "counts, extremes, constant layers", max(exact), 0.0
    yield "mean / std", _apart(_ratio(here)[spread], _ratio(true)[spread]), RATIO
    squares, exact_squares = here.m2[spread], true.m2[spread]
    relative = _apart(squares / exact_squares, exact_squares / exact_squares)
    yield "squared deviations, relative", relative, SQUARES


def _ratio(moments: Moments) -> Tensor:
    return moments.mean / (moments.m2 / moments.count).sqrt()


def _apart(found: Tensor, true: Tensor) -> float:
    """Returns the largest distance of two float64 vectors; infinity where only one holds NaN."""
    if not found.numel():
        return 0.0
    away = torch.where(found == true, 0.0, (found - true).abs())
    away = torch.where(found.isnan() & true.isnan(), 0.0, away)
    return float(away.nan_to_num(math.inf, math.inf).max())


def _last_places(found: Tensor, true: Tensor) -> float:
    """Returns the largest distance of two vectors, counted in numbers of their dtype between the two.

    Between -0.0 and 0.0 it is 1. Two NaN are equal; NaN and a number are infinitely far apart.
    """
    whole = {4: torch.int32, 8: torch.int64}[true.element_size()]
    found = found.cpu().contiguous()
    one, other = (_place(x.view(whole).long(), torch.iinfo(whole).min) for x in (found, true))
    # float64 rounds large integers, and a difference of large integers overflows.
    rough = (one.double() - other.double()).abs()
    away = torch.where(rough > 2**53, rough, (one - other).abs().double())
    away = torch.where(found.isnan() & true.isnan(), 0.0, away)
    return float(torch.where(found.isnan() ^ true.isnan(), math.inf, away).max())


def _place(bits: Tensor, least: int) -> Tensor:
    """Returns integers in the order of the floating-point numbers that have these bits."""
    return torch.where(bits >= 0, bits, least - bits - 1)
