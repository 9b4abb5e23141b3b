"""Checks and normalises what a part of a run gives to be remembered, in the round in which it gives it.

Parts are often the user's own. What passes here comes back from a checkpoint with the same types, shapes,
strides and order of names, so that a resumed run has the same bits as one that was not stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.errors import InputError
from fedtlu_fast.part_memory import ClientMemory, Value

ARRAYS: Final = frozenset(map(np.dtype, ("?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8")))
"""The dtypes of arrays that all supported versions of PyTorch and safetensors can hold."""
_OF_ARRAYS = (torch.from_numpy(np.empty(0, dtype)).dtype for dtype in ARRAYS)
TENSORS: Final = frozenset({torch.bfloat16, *_OF_ARRAYS})
"""The dtypes of tensors that they can hold."""
DTYPES: Final = "bool, uint8, int8 to int64, float16 to float64"


def client_values(field: str, given: Any) -> ClientMemory:
    """Returns what a part remembers of one client, as checkpoints hold it.

    Numbers of NumPy and arrays without dimensions become Python numbers. Arrays are copied; they become
    contiguous, in the byte order of the machine.

    Args:
        field: the part, by the name that errors give it.
        given: the values by name.

    Raises:
        InputError: it is no mapping from texts to numbers or arrays of numbers, or a number is a bool, too
            long, or of a dtype that checkpoints cannot hold.
    """
    named = _by_name(f"{field}: memory", given, "values")
    return {name: _client_value(f"{field}: memory[{name!r}]", named[name]) for name in sorted(named)}


def server_tensors(field: str, given: Any) -> dict[str, Tensor]:
    """Returns what a part remembers on the server, as checkpoints hold it: contiguous and without gradients.

    Args:
        field: the part and its attribute, by the name that errors give them.
        given: the tensors by name.

    Raises:
        InputError: it is no mapping from texts to dense tensors of a dtype that checkpoints can hold.
    """
    named = _by_name(field, given, "tensors")
    return {name: _server_tensor(f"{field}[{name!r}]", named[name]) for name in sorted(named)}


def is_name(given: Any) -> bool:
    """Tells whether a file of a checkpoint can hold this name."""
    # Half of a surrogate pair has no bytes in UTF-8.
    return isinstance(given, str) and not any("\ud800" <= letter <= "\udfff" for letter in given)


def _by_name(field: str, given: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise InputError(field, given, f"a mapping from names to {what}")
    for name in given:
        if not is_name(name):
            raise InputError(f"{field}: name", name, "a text", "Use str(...).")
    return given


def _client_value(field: str, value: Any) -> Value:
    found = value
    if isinstance(value, np.ndarray | np.generic):
        native = value.dtype.newbyteorder("=")
        if value.ndim and native in ARRAYS:
            # Copied: it may be a view of vectors in which the next client is trained.
            return np.array(value, dtype=native, order="C")
        if not value.ndim and value.dtype.kind in "biuf":
            found = value.item()  # of a long double, this is one
    if isinstance(found, bool):
        raise InputError(field, found, "a number or an array of numbers", "Use int(...) for 0 or 1.")
    if isinstance(found, float):
        return float(found)
    if isinstance(found, int) and -(2**63) <= found < 2**63:
        return int(found)
    raise InputError(
        field,
        _shown(value),
        f"a number or a NumPy array of numbers, which checkpoints can hold ({DTYPES})",
        "tensor.cpu().numpy() makes one of a tensor.",
    )


def _server_tensor(field: str, value: Any) -> Tensor:
    plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
    if not plain or value.is_quantized or value.dtype not in TENSORS:
        raise InputError(
            field,
            _shown(value),
            f"a dense tensor of numbers, which checkpoints can hold ({DTYPES}, bfloat16)",
            "torch.as_tensor(...) makes one of a number or an array.",
        )
    tensor: Tensor = value.detach().contiguous()
    return tensor


def _shown(value: Any) -> Any:
    """Returns a text in place of an array or tensor, whose numbers would not say what is wrong."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and layout {value.layout}"
    if isinstance(value, np.ndarray | np.generic):
        return f"an array of {value.dtype} and shape {value.shape}"
    return value
