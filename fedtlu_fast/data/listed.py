"""Pools of samples that are read when a batch needs them and that may have different sizes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.data.form import Form, flattened, to_device, words
from fedtlu_fast.errors import InputError

Places = NDArray[np.int64]
Collate = Callable[[Sequence[Any]], Any]
"""Makes one batch from a list of samples, as the ``collate_fn`` of `torch.utils.data.DataLoader` does."""


class Items(Protocol):
    """A container of samples: a list, a `torch.utils.data.Dataset` or a Hugging Face Dataset."""

    def __len__(self) -> int:
        """Returns the number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Returns the sample at a place, from 0."""
        ...


@dataclass(frozen=True)
class Listed:
    """A pool of samples that reads each batch, and makes tensors of it, when the batch is needed.

    Attributes:
        items: the container of the samples.
        collate: makes a batch from a list of samples.
        form: the form that every batch has to have; None: any form.
        device: the device to which batches are sent.
    """

    items: Items
    collate: Collate
    form: Form | None = None
    device: str = "cpu"

    def __len__(self) -> int:
        return len(self.items)

    def select(self, rows: Places) -> tuple[Tensor, ...]:
        """Returns the samples at the places [...], filled up to one size, as tensors [..., *].

        Raises:
            InputError: `collate` returns anything but tensors whose first dimension counts the samples, or a
                batch whose form is not `form`.
        """
        flat = [int(row) for row in rows.reshape(-1)]
        batch, form = flattened(self.collate(read(self.items, flat)), "collate_fn")
        if self.form is not None and form != self.form:
            raise InputError("collate_fn", words(form), f"batches of one form, {words(self.form)}")
        for part in batch:
            if not part.ndim or len(part) != len(flat):
                expected = f"tensors whose first dimension counts the samples, here {len(flat)}"
                raise InputError("collate_fn", f"a tensor of shape {tuple(part.shape)}", expected)
        sent = to_device(batch, self.device)
        return sent if rows.ndim == 1 else tuple(part.reshape(*rows.shape, *part.shape[1:]) for part in sent)

    def part(self, rows: Places) -> Listed:
        """Returns a pool of the samples at the places [n], in this order."""
        if len(rows) == len(self) and bool((rows == np.arange(len(rows))).all()):
            return self
        return replace(self, items=_Part(self.items, rows))

    def loaded(self) -> Listed:
        """Returns the same pool with its samples in memory, in the form in which `items` returns them."""
        return replace(self, items=read(self.items, list(range(len(self)))))

    def on(self, device: str) -> Listed:
        """Returns the same pool with its batches on a device."""
        return replace(self, device=device)

    @staticmethod
    def joined(pools: Sequence[Listed]) -> Listed:
        """Joins pools into one, which collates as the first of them does."""
        return pools[0] if len(pools) == 1 else replace(pools[0], items=_Chain([p.items for p in pools]))


def read(items: Items, rows: list[int]) -> list[Any]:
    """Returns the items at these places, in one call if there is ``__getitems__``, as DataLoader does."""
    many: Callable[[list[int]], list[Any]] | None = getattr(items, "__getitems__", None)
    return many(rows) if many is not None else [items[row] for row in rows]


class _Part:
    """Some items of a container."""

    def __init__(self, items: Items, rows: Places) -> None:
        self._items, self._rows = items, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int, /) -> Any:
        return self._items[int(self._rows[index])]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return read(self._items, [int(self._rows[index]) for index in indices])


class _Chain:
    """The items of several containers, one container after another."""

    def __init__(self, parts: Sequence[Items]) -> None:
        self._parts = list(parts)
        self._ends = list(accumulate(map(len, self._parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int, /) -> Any:
        at = bisect_right(self._ends, index)
        return self._parts[at][index - (self._ends[at - 1] if at else 0)]
