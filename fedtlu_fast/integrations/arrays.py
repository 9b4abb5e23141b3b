"""Models as mappings from dotted names to NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.data.population import as_tensor
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import Layer

Arrays = Mapping[str, NDArray[Any]]
"""A model, or some blocks of it: dotted names and arrays."""


def fill_(views: Mapping[str, Tensor], arrays: Arrays, field: str, missing_ok: bool = False) -> None:
    """Copies arrays into the tensors of the same names, without a copy in between.

    Raises:
        InputError: an array has another shape than its tensor; or one is missing, and `missing_ok` is False.
    """
    for name, view in views.items():
        if name not in arrays:
            if missing_ok:
                continue
            raise InputError(field, f"no array {name}", "all parameters and buffers of the model")
        np.copyto(view.numpy(), _checked(arrays, name, tuple(view.shape), field), casting="same_kind")


def piece_of(layer: Layer, arrays: Arrays, field: str) -> Tensor:
    """Returns a layer's array as a vector, [N] float32; a float32 array is not copied.

    Raises:
        InputError: the array has another shape than the layer.
    """
    given = np.asarray(_checked(arrays, layer.name, layer.shape, field), np.float32)
    return as_tensor(given.reshape(-1))


def _checked(arrays: Arrays, name: str, shape: tuple[int, ...], field: str) -> NDArray[Any]:
    given = arrays[name]
    if given.shape != shape:
        raise InputError(f"{field}: {name}", given.shape, f"shape {shape}")
    return given
