"""The form of a batch: whether its tensors come alone, in a tuple or in a dictionary, and with which keys.

Inside the package a batch is a flat tuple of tensors (`population.Batch`). A user's model and loss receive
batches in the form that the user's data have. This module translates between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedtlu_fast.errors import InputError

Form = Any
"""Nested tuples and dictionaries that hold places in a flat batch; a lone tensor has the form ``0``."""

TARGETS = ("labels", "label", "targets", "target", "y")
"""Keys under which a sample that is a dictionary may hold its targets."""


def flattened(value: Any, field: str = "batch") -> tuple[tuple[Tensor, ...], Form]:
    """Returns the tensors of a batch in order, and the form from which `rebuilt` makes the batch again.

    Args:
        value: a tensor, or a tuple, list or mapping of such values. A named tuple becomes a tuple, and any
            mapping (Hugging Face's ``BatchEncoding`` too) a dictionary with its keys in sorted order.
        field: name of the batch in messages.

    Raises:
        InputError: something in it is not a tensor.

    Examples:
        >>> tensors, form = flattened({"y": torch.ones(2), "x": (torch.zeros(2), torch.zeros(2))})
        >>> form
        {'x': (0, 1), 'y': 2}
    """
    tensors: list[Tensor] = []

    def form_of(part: Any, name: str) -> Form:
        if isinstance(part, Tensor):
            tensors.append(part)
            return len(tensors) - 1
        if isinstance(part, Mapping):
            return {key: form_of(part[key], f"{name}[{key!r}]") for key in sorted(part)}
        if isinstance(part, tuple | list):
            return tuple(form_of(own, f"{name}[{at}]") for at, own in enumerate(part))
        raise InputError(
            name,
            part,
            "a tensor, or a tuple, list or dictionary of tensors",
            "Leave it out of the samples, or give a collate_fn that makes a tensor of it.",
        )

    form = form_of(value, field)
    if not tensors:
        raise InputError(field, value, "at least one tensor")
    return tuple(tensors), form


def rebuilt(batch: tuple[Tensor, ...], form: Form) -> Any:
    """Returns the batch in its form: the value that `flattened` received, with tuples in place of lists."""
    if isinstance(form, int):
        return batch[form]
    if isinstance(form, dict):
        return {key: rebuilt(batch, part) for key, part in form.items()}
    return tuple(rebuilt(batch, part) for part in form)


def form_of_columns(columns: int) -> Form:
    """Returns the default form of a batch with so many tensors: a lone tensor, or a tuple."""
    return 0 if columns == 1 else tuple(range(columns))


def words(form: Form) -> str:
    """Describes a form for messages, as in ``(tensor, {'mask': tensor})``."""
    if isinstance(form, int):
        return "tensor"
    if isinstance(form, dict):
        return "{" + ", ".join(f"{key!r}: {words(part)}" for key, part in form.items()) + "}"
    return "(" + ", ".join(map(words, form)) + ")"


def to_device(batch: tuple[Tensor, ...], device: str | torch.device) -> tuple[Tensor, ...]:
    """Returns the batch on a device."""
    return tuple(part.to(device) for part in batch)
