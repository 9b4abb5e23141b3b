"""Describes values of the user's own as texts that are equal in every process if the values are equal."""

from __future__ import annotations

import hashlib
import inspect
from collections import deque
from collections.abc import Mapping, Set
from enum import Enum
from functools import partial
from itertools import islice
from pathlib import PurePath
from types import CodeType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

PLAIN = (bool, int, float, complex, str, bytes, type(None), range, slice, PurePath, torch.dtype, np.dtype)
"""Types whose `repr` determines the value, in every process."""
SEQUENCES = (list, tuple, deque)
GATHERED = (*SEQUENCES, set, frozenset, Mapping)
"""Types of values that hold other values."""
MOST = 10_000
"""The number of entries of a list, dictionary or set that count, besides its length."""
DEEPEST = 20
"""The number of levels of nested values that count; a list may also hold itself."""


def described(value: Any, depth: int = 0) -> str:
    """Returns a text that determines a value; it depends neither on the process nor on the order of a set.

    Tensors and arrays count by type, shape and the SHA-256 of their bytes, compiled code by its
    instructions, names and constants. Of any other object only the class's name counts, and of a function
    its name. It raises no error.

    Args:
        value: any value.
        depth: the number of values around this one.
    """
    try:
        return _described(value, depth)
    except Exception:  # such as a tensor without bytes, or an object that raises when it is read
        return name_of(value)


def name_of(value: Any) -> str:
    """Returns the name of a function or class, or of an object's class, without its module."""
    named = value if isinstance(getattr(value, "__qualname__", None), str) else type(value)
    return f"<{named.__qualname__}>"


def is_json(value: Any) -> bool:
    """Tells whether JSON can hold a value, so that the settings of a run hold it."""
    if isinstance(value, Mapping):
        return all(map(is_json, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_json, islice(value, MOST)))
    return isinstance(value, bool | int | float | str | None)


def in_order(values: Any) -> list[Any]:
    """Returns the entries of a list, dictionary or set, of the last in an order that no process changes."""
    if isinstance(values, Mapping):
        return list(islice(values.values(), MOST))
    first = islice(values, MOST)
    return sorted(first, key=described) if isinstance(values, Set) else list(first)


def _described(value: Any, depth: int) -> str:
    if depth > DEEPEST:
        return name_of(value)
    deeper = depth + 1
    if isinstance(value, Enum):
        return f"{name_of(value)}.{value.name}"
    if isinstance(value, Tensor):
        data = value.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
        return f"{value.dtype}{tuple(value.shape)}{_sha256(data.view(torch.uint8).numpy())}"
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.hasobject:
            return f"{value.shape}{described(value.tolist(), deeper)}"
        return f"{value.dtype.str}{value.shape}{_sha256(np.frombuffer(value.tobytes(), np.uint8))}"
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, CodeType):
        # Without the file and the line where the code stands.
        return described((value.co_code, value.co_names, value.co_freevars, value.co_consts), deeper)
    if isinstance(value, SimpleNamespace):
        value = vars(value)
    if isinstance(value, Mapping):
        items = [f"{described(key, deeper)}: {described(own, deeper)}" for key, own in _first(value.items())]
        return f"{len(value)}{{{', '.join(sorted(items))}}}"
    if isinstance(value, set | frozenset):
        return f"{len(value)}set({', '.join(sorted(described(own, deeper) for own in value)[:MOST])})"
    if isinstance(value, SEQUENCES):
        return f"{len(value)}[{', '.join(described(own, deeper) for own in _first(value))}]"
    if isinstance(value, partial):
        return f"{name_of(value.func)}{described((value.args, value.keywords), deeper)}"
    if inspect.ismethod(value):
        return f"{name_of(value.__self__)}.{value.__name__}"
    return name_of(value)


def _first(values: Any) -> Any:
    return islice(values, MOST)


def _sha256(data: np.ndarray) -> str:
    return hashlib.sha256(data.data).hexdigest()
