"""Computes the binding's right answer in NumPy float64; it shares no code with the package.

`UnfitError` is raised for arguments that the binding must refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from fuzz.memory import Array, address, is_array
from fuzz.sequences import PlannedError
from support import oracle

NAMES = ("float32", "bfloat16", "float16", "float64")
KINDS = {"float32": ("f", 4), "bfloat16": ("iu", 2), "float16": ("iu", 2), "float64": ("f", 8)}
# The argument that a function writes to.
TARGETS = {
    "accumulate_": "aggregate",
    "aggregate": "out",
    "masked_apply_": "params",
    "sorted_mean": "out",
    "train_perceptrons": "change",
}
# And the second one, of a function that has two.
SECONDS = {"train_perceptrons": "own"}


class UnfitError(Exception):
    """The call has no right answer and must be refused."""


class WrongError(AssertionError):
    """The binding gave a wrong answer."""


@dataclass
class Expected:
    """Holds the target's new values, which of them were touched, and the moments [5, L] or None.

    `squares` [K, L] are the squared norms that stand in place of the last moments.
    Or, in place of them, what looks at answer and target and raises `WrongError`.
    """

    target: Array | None = None
    touched: Array | None = None
    result: Any = None
    judge: Callable[[Any, Array | None], None] | None = None
    squares: Array | None = None


def need(fits: bool, what: str) -> None:
    if not fits:
        raise UnfitError(what)


def wide(name: str) -> str:
    return "float64" if name == "float64" else "float32"


def vector(array: Any, kinds: str, item_size: int, what: str) -> Array:
    need(is_array(array), f"{what} is no array")
    plain: Array = array.view(np.ndarray)
    need(plain.dtype.kind in kinds and plain.dtype.itemsize == item_size, f"{what} is {plain.dtype}")
    need(plain.dtype.isnative and plain.ndim == 1 and plain.flags.c_contiguous, f"{what} is no flat vector")
    return plain


def decode(array: Any, name: str, what: str) -> Array:
    plain = vector(array, *KINDS[name], what)
    if name == "bfloat16":
        return (plain.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return (plain.view(np.float16) if name == "float16" else plain).astype(np.float64)


def bounds(offsets: Any, length: int) -> list[int]:
    plain: list[int] = vector(offsets, "i", 8, "offsets").tolist()
    need(bool(plain) and plain == sorted(plain) and plain[0] >= 0 and plain[-1] <= length, f"offsets {plain}")
    return plain


def items(sequence: Any) -> list[Any]:
    """Returns the items that a sequence gave when the binding read it."""
    return sequence.seen if hasattr(sequence, "seen") else list(sequence)


def dtype_name(dtype: Any) -> str:
    need(
        isinstance(dtype, str) and str.__str__(dtype) in NAMES,
        f"dtype {str.__repr__(dtype)}" if isinstance(dtype, str) else "dtype",
    )
    return str.__str__(dtype)


def truth(value: Any, what: str) -> bool:
    """Tells whether a value counts as true; an array of several numbers is neither true nor false."""
    try:
        return bool(value)
    except ValueError as error:
        raise UnfitError(f"{what} is neither true nor false") from error


def beside(array: Array, target: Array, what: str) -> None:
    need(array.size == target.size, f"{what} has {array.size} elements, not {target.size}")
    first, second = address(array), address(target)
    same = first == second and array.nbytes == target.nbytes
    apart = first + array.nbytes <= second or second + target.nbytes <= first
    need(same or apart, f"{what} overlaps in part")


def moments(layers: Sequence[Array]) -> Array:
    """Computes moments, [5, L]."""
    rows = [oracle.moments(layer) for layer in layers]
    return np.array(rows, dtype=np.float64).reshape(len(layers), 5).T


def cut(values: Array, at: list[int]) -> list[Array]:
    return [values[start:stop] for start, stop in pairwise(at)]


def expected(function: str, args: dict[str, Any]) -> Expected:
    """Computes the right answer to a call from the memory before it."""
    with np.errstate(all="ignore"):
        try:
            # An object may say another number every time it is asked; any number gives the same result.
            threads = args.get("threads", 1)
            need(not isinstance(threads, int) or threads >= 1, "threads")
            return ANSWERS[function](args)
        except (KeyError, TypeError, PlannedError) as error:  # of an argument that raises when it is asked
            raise UnfitError(repr(error)) from error


def _layer_stats(args: dict[str, Any]) -> Expected:
    values = decode(args["delta"], dtype_name(args["dtype"]), "delta")
    return Expected(result=moments(cut(values, bounds(args["offsets"], values.size))))


def _layer_stats_list(args: dict[str, Any]) -> Expected:
    tensors, dtypes = items(args["tensors"]), args["dtypes"]
    names = [dtypes] * len(tensors) if isinstance(dtypes, str) else items(dtypes)
    need(len(names) == len(tensors), "dtypes")
    pairs = zip(tensors, names, strict=True)
    return Expected(result=moments([decode(tensor, dtype_name(name), "tensors") for tensor, name in pairs]))


def _target(args: dict[str, Any], function: str, name: str) -> Array:
    target = vector(args[TARGETS[function]], *KINDS[wide(name)], TARGETS[function])
    need(target.flags.writeable, "read-only target")
    return target


def _change(array: Any, name: str, target: Array, what: str) -> Array:
    values = decode(array, name, what)
    beside(array, target, what)
    return values


def _accumulate(args: dict[str, Any]) -> Expected:
    name = dtype_name(args["dtype"])
    target = _target(args, "accumulate_", name)
    change = _change(args["client"], name, target, "client")
    if args["base"] is not None:
        change = change - _change(args["base"], name, target, "base")
    new = (target.astype(np.float64) + float(args["weight"]) * change).astype(target.dtype)
    stats = None
    if args["offsets"] is not None:
        stats = moments(cut(new.astype(np.float64), bounds(args["offsets"], target.size)))
    return Expected(new, np.ones(new.shape, dtype=bool), stats)


def _aggregate(args: dict[str, Any]) -> Expected:
    name = dtype_name(args["dtype"])
    target = _target(args, "aggregate", name)
    clients = items(args["clients"])
    weights = vector(args["weights"], "f", 8, "weights").tolist()
    need(len(weights) == len(clients), "weights")
    at = bounds(args["offsets"], target.size)
    asked = args["client_stats"]
    norms = isinstance(asked, str) and asked == "norms"
    client_stats = not norms and truth(asked, "client_stats")
    base = None if args["base"] is None else _change(args["base"], name, target, "base")
    total, each, squares = np.zeros(target.size), [], []
    for client, weight in zip(clients, weights, strict=True):
        change = _change(client, name, target, "clients")
        if base is not None:
            change = change - base
        total += weight * change
        squares.append([np.square(layer).sum() for layer in cut(change, at)])
        rounded = change if base is None else change.astype(target.dtype).astype(np.float64)
        each.append(moments(cut(rounded, at)))
    new = total.astype(target.dtype)
    of_clients = np.array(each).reshape(len(each), 5, len(at) - 1) if client_stats else None
    of_layers = np.array(squares).reshape(len(squares), len(at) - 1) if norms else None
    stats = (moments(cut(new.astype(np.float64), at)), of_clients)
    return Expected(new, np.ones(new.shape, dtype=bool), stats, squares=of_layers)


def _masked_apply(args: dict[str, Any]) -> Expected:
    name = dtype_name(args["dtype"])
    target = _target(args, "masked_apply_", name)
    change = _change(args["delta"], name, target, "delta")
    at = bounds(args["offsets"], target.size)
    mask = vector(args["mask"], "b", 1, "mask").view(np.uint8)
    need(mask.size == len(at) - 1, "mask")
    touched = np.zeros(target.shape, dtype=bool)
    for layer in np.flatnonzero(mask):
        touched[at[layer] : at[layer + 1]] = True
    new = (target.astype(np.float64) + float(args["lr"]) * change).astype(target.dtype)
    new[~touched] = target[~touched]
    return Expected(new, touched)


def _read_loop(args: dict[str, Any]) -> Expected:
    values = vector(args["values"], *KINDS["float32"], "values")
    words = np.frombuffer(values.tobytes()[: values.nbytes // 8 * 8], dtype=np.uint64)
    return Expected(result=int(np.bitwise_xor.reduce(words, initial=0)))


ANSWERS = {
    "read_loop": _read_loop,
    "layer_stats": _layer_stats,
    "layer_stats_list": _layer_stats_list,
    "accumulate_": _accumulate,
    "aggregate": _aggregate,
    "masked_apply_": _masked_apply,
}


def compare(answer: Any, target: Array | None, wanted: Expected) -> None:
    """Raises `WrongError` unless the bits are right (except payloads of NaN) and moments are close."""
    if wanted.judge is not None:
        wanted.judge(answer, target)
        return
    if wanted.target is not None and target is not None and wanted.touched is not None:
        integer = {4: np.uint32, 8: np.uint64}[wanted.target.itemsize]
        same = target.view(integer) == wanted.target.view(integer)
        same |= wanted.touched & np.isnan(target) & np.isnan(wanted.target)
        if not same.all():
            at = int(np.flatnonzero(~same)[0])
            raise WrongError(f"element {at} is {target[at]!r}, not {wanted.target[at]!r}")
    if isinstance(wanted.result, tuple):
        if not isinstance(answer, tuple) or len(answer) != len(wanted.result):
            raise WrongError(f"answered {type(answer)}")
        shown = answer if wanted.squares is None else (*answer[:-1], None)
        for got, matrix in zip(shown, wanted.result, strict=True):
            _compare_moments(got, matrix)
        if wanted.squares is not None:
            _compare_squares(answer[-1], wanted.squares)
    elif isinstance(wanted.result, int):
        if answer != wanted.result:
            raise WrongError(f"answered {answer!r}, not {wanted.result!r}")
    else:
        _compare_moments(answer, wanted.result)


def _compare_squares(got: Any, squares: Array) -> None:
    if not is_array(got) or got.dtype != np.float64 or got.shape != squares.shape:
        raise WrongError(f"squared norms are {type(got)}")
    truth = np.where(np.isfinite(squares), squares, np.nan)
    # Sums near the largest float64 may overflow in one order and not in another.
    fits = (np.abs(got - truth) <= 1e-12 * truth + 1e-300) | (np.isnan(got) & ~(truth < 1e307))
    if not fits.all():
        at = tuple(int(index[0]) for index in np.nonzero(~fits))
        raise WrongError(f"squared norm {at} is {got[at]!r}, not {truth[at]!r}")


def _compare_moments(got: Any, matrix: Array | None) -> None:
    if matrix is None or got is None:
        if matrix is not got:
            raise WrongError(f"moments are {type(got)}")
        return
    if got.dtype != np.float64 or got.shape != matrix.shape:
        raise WrongError(f"moments are {got.dtype} {got.shape}, not float64 {matrix.shape}")
    rows, truth = np.moveaxis(got, -2, 0), np.moveaxis(matrix, -2, 0)
    count, _, m2, abs_max, _ = truth
    with np.errstate(all="ignore"):
        allowed = np.zeros_like(truth)
        allowed[1] = 1e-12 * abs_max + 5e-324
        allowed[2] = 1e-9 * m2 + 1e-13 * count * abs_max**2 + 1e-300
        fits = (np.abs(rows - truth) <= allowed) | (np.isnan(rows) & np.isnan(truth))
    # Squares that float64 cannot hold: no more than the other rows is promised.
    fits[1:3, abs_max > 1e150] = True
    if not fits.all():
        at = tuple(int(index[0]) for index in np.nonzero(~fits))
        name = ("count", "mean", "m2", "abs_max", "nonfinite")[at[0]]
        raise WrongError(f"{name} of layer {at[1:]} is {rows[at]!r}, not {truth[at]!r}")
