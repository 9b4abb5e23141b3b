"""Flower's arrays as NumPy arrays that share their memory."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import ArrayRecord
from numpy.typing import NDArray

from fedtlu_fast.errors import InputError

STYPE = "numpy.ndarray"
"""The only form in which Flower serialises arrays: the bytes of a .npy file."""


def views_of(record: ArrayRecord, names: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Returns the numbers of a record where they lie, read-only, by dotted name; `Array.numpy` copies them.

    Args:
        record: the record, whole or with some arrays only.
        names: the dotted name of each key of the record.

    Raises:
        InputError: the record has another key; or an array is serialised in another form than NumPy's, or
            holds Python objects.
    """
    if unknown := record.keys() - names.keys():
        raise InputError("arrays", min(unknown), "the names of the global model's arrays")
    for array in record.values():
        if array.stype != STYPE:
            raise InputError("stype", array.stype, f"{STYPE}, which Flower's Array makes")
    return {names[key]: view_of_bytes(array.data) for key, array in record.items()}


def view_of_bytes(data: bytes) -> NDArray[Any]:
    """Returns the numbers in the bytes of a .npy file where they lie, read-only.

    Raises:
        InputError: they are Python objects.
    """
    head = BytesIO(data[:4096])  # headers of .npy files are short
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(head)
    if dtype.hasobject:
        raise InputError("dtype", str(dtype), "numbers, not Python objects")
    count = int(np.prod(shape, dtype=np.int64))
    flat = np.frombuffer(data, dtype, count, offset=head.tell())
    return flat.reshape(shape, order="F" if fortran else "C")
