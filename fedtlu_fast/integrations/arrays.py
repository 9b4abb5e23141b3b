"""Models as mappings from dotted names to NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.errors import InputError

Arrays = Mapping[str, NDArray[Any]]
"""A model, or some blocks of it: dotted names and arrays."""


def fill_(views: Mapping[str, Tensor], arrays: Arrays, field: str, missing_ok: bool = False) -> None:
    """Copies arrays into the tensors of the same names, without a copy in between."""
    for name, view in views.items():
        if name not in arrays:
            if missing_ok:
                continue
            raise InputError(field, f"no array {name}", "all parameters and buffers of the model")
        given = arrays[name]
        if given.shape != tuple(view.shape):
            raise InputError(f"{field}: {name}", given.shape, f"shape {tuple(view.shape)}")
        np.copyto(view.numpy(), given, casting="same_kind")
