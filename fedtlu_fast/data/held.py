"""What a user may give as the samples of one client, and the pool of samples that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from fedtlu_fast.data.form import Form, flattened, rebuilt
from fedtlu_fast.data.listed import Collate, Items, Listed
from fedtlu_fast.data.pad import Pad
from fedtlu_fast.data.population import Batch, Pool
from fedtlu_fast.errors import InputError, check_kind

Held = Items | Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]
"""The samples of one client; see `Datasets`."""


def pool_of(held: Held, field: str, collate: Collate | None) -> tuple[Pool, Form | None]:
    """Returns a client's samples as a pool, with their form if it is known without reading a sample.

    Args:
        held: the samples of one client; see `Datasets`.
        field: the argument that holds them, for messages.
        collate: makes a batch from a list of samples; None: `Pad`, or no function for tensors.

    Raises:
        InputError: see `check_holder`; or the tensors do not count the same samples.
    """
    columns = _columns(held, field)
    if columns is not None:
        batch, form = columns
        return (batch, form) if collate is None else (Listed(_Rows(batch, form), collate), None)
    check_holder(held, field)
    check_kind(field, len(held), int, "a whole number of samples")
    return Listed(held, collate or Pad()), None  # type: ignore[arg-type]


def check_holder(held: Any, field: str) -> None:
    """Checks that an object can hold samples; nothing is read.

    Args:
        held: anything that a user gives as the samples of one client.
        field: the argument that holds it, for the message.

    Raises:
        InputError: it is a DataLoader, an IterableDataset, a text, or has no length or no numbered samples.
    """
    if isinstance(held, DataLoader):
        fix = "Give its dataset: loader.dataset. Batches are made here (ft.Local(batch_size=...))."
        raise InputError(field, "a DataLoader", "a Dataset, a list of samples, or tensors", fix)
    if isinstance(held, IterableDataset):
        expected = "a Dataset with a length and places"
        raise InputError(field, held, expected, "Read an iterable one into a list first.")
    if isinstance(held, str) or not (hasattr(held, "__len__") and hasattr(held, "__getitem__")):
        raise InputError(field, held, "a Dataset, a list of samples, or tensors")


def _columns(held: Held, field: str) -> tuple[Batch, Form] | None:
    """Returns the tensors of a client that holds tensors, with their form; None for other clients."""
    value: Any = held.tensors if isinstance(held, TensorDataset) else held
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, tuple):
        if not value or not all(isinstance(own, Tensor | np.ndarray) for own in value):
            return None
        value = tuple(torch.as_tensor(own) for own in value)
    elif isinstance(value, Mapping):
        if not all(isinstance(own, Tensor | np.ndarray) for own in value.values()):
            raise InputError(field, value, "a Dataset, a list of samples, or a dictionary of tensors")
        value = {key: torch.as_tensor(own) for key, own in value.items()}
    elif not isinstance(value, Tensor):
        return None
    batch, form = flattened(value, field)
    lengths = {len(part) if part.ndim else None for part in batch}
    if len(lengths) > 1 or None in lengths:
        shapes = ", ".join(str(tuple(part.shape)) for part in batch)
        raise InputError(
            field, f"tensors of shapes {shapes}", "one first dimension, which counts the samples"
        )
    return batch, form


class _Rows:
    """Samples that are rows of tensors, for a collate function."""

    def __init__(self, batch: Batch, form: Form) -> None:
        self._batch, self._form = batch, form

    def __len__(self) -> int:
        return len(self._batch[0])

    def __getitem__(self, index: int, /) -> Any:
        return rebuilt(tuple(part[index] for part in self._batch), self._form)


def length_of(held: Held) -> int | None:
    """Returns the number of a client's samples; None if the object has no length."""
    columns = _columns(held, "samples")
    if columns is not None:
        return len(columns[0][0])
    return len(held) if hasattr(held, "__len__") else None
