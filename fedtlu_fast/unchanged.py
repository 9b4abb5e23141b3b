"""Parts of a run must not change the tensors that they receive, because others read the same memory.

Without a check, such a change gives other bits with another executor or another number of workers, and no
error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from fedtlu_fast.errors import InputError


@contextmanager
def unchanged(field: str, part: object, hook: str, tensors: Mapping[str, Tensor | None]) -> Iterator[None]:
    """Checks that code of a part changes no tensor in place.

    The check compares the counters with which PyTorch counts changes of a tensor and of its views. It reads
    no values, and does not see changes through a NumPy array that shares a tensor's memory.

    Args:
        field: the setting that chooses the part.
        part: the part, of which the message names the class; or the name of a function.
        hook: the part's method, for the message; empty for a function.
        tensors: the tensors that must not change, by the names that the part knows; None: there is no such
            tensor.

    Raises:
        InputError: a tensor was changed in place.
    """
    before = [
        (name, tensor, tensor._version)
        for name, tensor in tensors.items()
        if tensor is not None and not tensor.is_inference()  # whose changes PyTorch does not count
    ]
    yield
    who = part if isinstance(part, str) else f"{type(part).__name__}.{hook}"
    for name, tensor, version in before:
        if tensor._version != version:
            raise InputError(
                field,
                f"{who}, which changed {name} in place",
                f"code that leaves {name} as it is, because others read the same memory",
                f"Change a copy: {name}.clone() makes one.",
            )
