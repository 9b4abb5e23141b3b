"""Spoils a valid call: one argument becomes wrong, or almost wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from fuzz import calls, sequences
from fuzz.memory import Array, Dice, Memory, Vector, is_array
from fuzz.oracle import NAMES, TARGETS, items
from fuzz.stacks import COUNTS

VECTORS = (
    "delta", "aggregate", "client", "base", "out", "params", "offsets", "mask", "weights", "values",
    "features", "labels", "rows", "starts", "firsts", "layers", "change", "own", "centre",
    "rooms", "costs", "reach",
)  # fmt: skip
INDICES = ("labels", "rows", "starts", "firsts", "layers")
LIMITS = (-(2**63), 2**63 - 1, 2**62, -1, -2, 2**31, 2**32)
ODD = (None, 3, 1.5, math.nan, "float32", "\ud800", b"12345678", (), [], {}, object(), ..., 10**400, 1j)
DTYPES = ("f4", "f8", ">f4", ">f8", "f2", "i2", ">i2", "i4", "i8", ">i8", "u8", "c8", "O", "S4", "?", "M8[s]")
# Elements of an array that is copied; a broadcast one may claim any number.
MOST = 10**6


class Index:
    """Is an integer through __index__, which lies, raises an error, or changes its answer."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.answer: Any = None
        """What was answered last."""

    def __index__(self) -> int:
        answer = self.answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]


class Name(str):
    """Is a string that claims to be another one."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise sequences.PlannedError("eq")

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        raise sequences.PlannedError("repr")


class Posing:
    """Claims to be an array."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.dtype, self.ndim, self.size, self.flags = array.dtype, array.ndim, array.size, array.flags
        self.__array_interface__ = array.__array_interface__

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return np.ndarray

    def __array__(self, *_: Any, **__: Any) -> Array:
        return self.array


def spoil(function: str, args: dict[str, Any], dice: Dice, memory: Memory) -> None:
    """Changes one argument; sometimes exchanges two, removes one, or adds an unknown one."""
    try:
        _spoil(function, args, dice, memory)
    except (TypeError, ValueError, IndexError, OverflowError):
        return  # NumPy cannot make this array: a broadcast of nothing, a cast of dates


def _spoil(function: str, args: dict[str, Any], dice: Dice, memory: Memory) -> None:
    draw = dice.random()
    if draw < 0.02:
        del args[dice.choice(list(args))]
        return
    if draw < 0.03:
        args["extra"] = 1
        return
    if draw < 0.06:
        first, second = (dice.choice(list(args)) for _ in range(2))
        args.update(
            {name: args[other] for name, other in ((first, second), (second, first)) if other in args}
        )
        return
    if not args:
        return
    name = dice.choice(list(args))
    target = args.get(TARGETS.get(function, ""))
    target = target if is_array(target) else None
    given = args[name]
    if dice.rarely():
        args[name] = dice.choice(ODD)
    elif name in ("clients", "tensors", "dtypes"):
        args[name] = _sequence(given, target, dice, memory)
    elif name in VECTORS and is_array(given):
        args[name] = _array(name, given, target, dice, memory)
    elif name == "threads":
        args[name] = dice.choice(
            (0, -1, -(2**31), 2**31, 2**63, -(2**70), 2.0, "2", None, np.float32(1), Index(2), Index(0),
             Index(1, -5), Index(sequences.PlannedError("index")), Index("two"))
        )  # fmt: skip
    elif name in COUNTS:
        args[name] = dice.choice((-1, 0, 1, given, 41, 2**31, 2**63, -(2**70), 2.0, "2", None, Index("two")))
    elif name in ("weight", "lr"):
        args[name] = dice.choice(
            (None, "1", 10**400, -(10**400), 1j, Index(2), Index(sequences.PlannedError("float")), np.ones(1),
             np.ones(2), np.datetime64("now"), memory.put(np.array(0.5)))
        )  # fmt: skip
    elif name == "steps" and isinstance(given, dict):
        args[name] = _steps(args, target, dice)
    elif name == "client_stats":
        args[name] = dice.choice((None, 2, "yes", np.ones(2), [], Index(0), 1.5))
    elif name == "dtype":
        args[name] = _dtype(dice)
    elif name in ("base", "offsets") and target is not None and target.size <= MOST:
        args[name] = _array(name, memory.put(calls.numbers(dice, target.size, "float64")), None, dice, memory)


class Acting:
    """Is a number that acts once when it is asked for its value."""

    def __init__(self, act: Callable[[Any], None]) -> None:
        self.act: Callable[[Any], None] | None = act

    def __float__(self) -> float:
        act, self.act = self.act, None
        if act is not None:
            act(None)
        return 0.1


def _steps(args: dict[str, Any], target: Array | None, dice: Dice) -> Any:
    """Makes steps with a number that is wrong, lies, or changes arrays that may have been checked before."""
    steps = dict(args["steps"])
    name = dice.choice(list(steps))
    kind = dice.randrange(4)
    if kind == 0:
        del steps[name]
    elif kind == 1:
        steps[name] = dice.choice((-1.0, math.nan, "1", None, 10**400, 1j, Index(2), np.ones(2), [], -0.0))
    elif kind == 2 and target is not None:
        steps[name] = Acting(sequences.reshape(target, dice))
    elif is_array(args.get("params")) and args["params"].dtype == np.dtype("f4"):
        # Of its own memory, which may be taken away from it.
        own = np.array(args["params"], subok=False)
        args["params"] = own
        steps[name] = Acting(lambda _: own.resize(dice.choice((0, 1)), refcheck=False))
    return steps


def _dtype(dice: Dice) -> Any:
    name = dice.choice(NAMES)
    return dice.choice(
        (name, name, name.upper(), name + "\0", name[:-1], "", "\ud800", "x" * 70000, name.encode(),
         Name(name), Name("int8"), np.str_(name), np.dtype("f4"), None, 32, "ｆloat32", "float32\U0001f600")
    )  # fmt: skip


def _sequence(given: Any, target: Array | None, dice: Dice, memory: Memory) -> Any:
    if isinstance(given, str):
        return dice.choice((_dtype(dice), [given], (given,) * 3))
    try:
        values = list(items(given))[:1000]
    except Exception:
        return given
    if dice.often():
        return sequences.strange(values, target, dice)
    if not values or dice.rarely():
        return [*values, dice.choice((*values, *ODD, target))]
    at = dice.randrange(len(values))
    if dice.rarely():
        del values[at]
    elif is_array(values[at]):
        values[at] = _array("clients", values[at], target, dice, memory)
    else:
        values[at] = _dtype(dice)
    return values


def _array(name: str, given: Array, target: Array | None, dice: Dice, memory: Memory) -> Any:
    """Returns the array with a fault."""
    if given.size > MOST or (target is not None and target.size > MOST):
        return given
    if name == "offsets" and given.dtype == np.dtype("i8") and given.size and dice.random() < 0.7:
        return _offsets(given, target, dice, memory)
    if name in INDICES and given.dtype == np.dtype("i8") and given.size and dice.random() < 0.7:
        changed = memory.put(given.copy()).view(np.ndarray)
        changed[dice.randrange(given.size)] += dice.choice((-1, 1, 1, 2, 7, 2**31, 2**62, -(2**63)))
        return changed
    if target is not None and given is not target and dice.random() < 0.3:
        # Over the target, in part or a few bytes off; for small ones also just beside it.
        bytes_ = dice.choice((1, 2, 4, 8, 3, target.nbytes, given.nbytes)) * dice.choice((-1, 1))
        shift = dice.choice((0, bytes_))
        found = memory.beside(target, given.dtype, shift, given.size)
        if found is not None:
            return found
    kind = dice.randrange(18)
    if kind == 0:
        return memory.put(np.repeat(given, 2))[::2]
    if kind == 1:
        return memory.put(given[::-1])[::-1]
    if kind == 2:
        return given.reshape(dice.choice(((1, -1), (-1, 1))) if given.size else (0, 3))
    if kind == 3:
        return memory.put(np.resize(given, given.size + dice.choice((1, 16, 100))))
    if kind == 4:
        return given[: dice.randrange(given.size + 1)] if given.ndim == 1 else given
    if kind == 5:
        frozen = given[...]
        frozen.flags.writeable = False
        return frozen
    if kind == 6:
        return memory.put(given.astype(given.dtype.newbyteorder()))
    if kind == 7:
        with np.errstate(all="ignore"):
            cast = given.astype(dice.choice(DTYPES))
        return cast if cast.dtype == np.dtype("O") else memory.put(cast)
    if kind == 8:
        return np.broadcast_to(given.reshape(-1)[:1], dice.choice((given.shape, (0,), (1,), (10**12,))))
    if kind == 9:
        return memory.put(np.concatenate([given.reshape(-1)] * 2).reshape(2, -1)).T
    if kind == 10:
        return given.reshape(-1)[:1].reshape(()) if given.size else given
    if kind == 11:
        return dice.choice((given.tolist(), given.tobytes(), memoryview(given.tobytes()), Posing(given)))
    if kind == 12:
        return np.ma.masked_array(given, mask=True)
    if kind == 13:
        return given.view(np.dtype([("x", given.dtype)])) if given.ndim == 1 and given.dtype != "O" else given
    if kind == 14:
        return memory.pages.vector(dice, given.dtype, given.size)
    if kind == 15:
        return np.frombuffer(given.tobytes(), dtype=given.dtype)
    if kind == 16:
        return given.view(Vector)
    return memory.put(given)[dice.choice((slice(None), slice(0, 0), slice(1, None), ...))]


def _offsets(given: Array, target: Array | None, dice: Dice, memory: Memory) -> Array:
    changed = memory.put(given.copy()).view(np.ndarray)
    at = dice.randrange(changed.size)
    kind = dice.randrange(6)
    if kind == 0:
        changed[at] = dice.choice(LIMITS)
    elif kind == 1:
        changed[at] += dice.choice((-1, 1))
    elif kind == 2:
        changed[-1] = (target.size if target is not None else int(changed[-1])) + dice.choice((0, 1, 2))
    elif kind == 3:
        changed[:] = changed[::-1].copy()
    elif kind == 4:
        return changed[:at]
    else:
        changed[0] = -dice.randrange(3)
    return changed


def level(dice: Dice, levels: list[str]) -> Any:
    """Draws an argument of set_simd_level, good or bad."""
    if dice.often():
        return dice.choice(levels)
    name = dice.choice(levels)
    return dice.choice(
        (name.encode(), name + "\0", name + " ", name.upper(), "", "sse9", "\ud800", b"\xff\xfe", "x" * 10**6,
         None, 2, ..., [name], Name(name), np.str_(name), bytearray(name.encode()))
    )  # fmt: skip
