"""The collate function for samples of different sizes: each batch is filled up to its longest sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.data.form import TARGETS
from fedtlu_fast.errors import InputError

IGNORED = -100
"""The label that losses ignore, as in `torch.nn.functional.cross_entropy` and in `transformers`."""


@dataclass(frozen=True)
class Pad:
    """Stacks samples into a batch; tensors of different sizes are filled up at their ends.

    A sample is a tensor, array or number, or a tuple, list or dictionary of such values; a list that holds
    only numbers is a tensor. The targets of a sample are the last entry of a tuple, or the entry of a
    dictionary whose key is labels, label, targets, target or y.

    Attributes:
        padding: the value that fills up inputs, such as a tokenizer's ``pad_token_id``. Entries of a
            dictionary whose key ends in ``mask``, and ``token_type_ids``, are filled up with 0.
        ignore: the value that fills up integer targets; the default is the label that PyTorch's losses
            ignore.

    Examples:
        >>> Pad()([([3, 4], 1), ([5], 0)])
        (tensor([[3, 4],
                [5, 0]]), tensor([1, 0]))
    """

    padding: float = 0
    ignore: int = IGNORED

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Returns one batch, in the form of its samples.

        Args:
            samples: one sample or more.

        Raises:
            InputError: the samples have different forms or numbers of dimensions; a value is not a number; or
                targets that are not integers have different sizes, and no value exists that a loss would
                ignore.
        """
        first = samples[0]
        if _is_structure(first) and not isinstance(first, Mapping) and len(first) > 1:
            columns = _columns(samples)
            kinds = [False] * (len(columns) - 1) + [True]
            return tuple(
                self._merged(column, f"[{at}]", target)
                for at, (column, target) in enumerate(zip(columns, kinds, strict=True))
            )
        return self._merged(samples, "", target=False)

    def _merged(self, parts: Sequence[Any], name: str, target: bool) -> Any:
        first = parts[0]
        if isinstance(first, Mapping):
            keys = sorted(first)
            for part in parts:
                if not isinstance(part, Mapping) or sorted(part) != keys:
                    raise InputError(f"sample{name}", part, f"a dictionary with the keys {keys}, as others")
            return {
                key: self._merged([part[key] for part in parts], f"[{key!r}]", target or key in TARGETS)
                for key in keys
            }
        if _is_structure(first):
            columns = _columns(parts)
            return tuple(self._merged(own, f"{name}[{at}]", target) for at, own in enumerate(columns))
        return self._stacked([_tensor(part, name) for part in parts], name, target)

    def _stacked(self, parts: Sequence[Tensor], name: str, target: bool) -> Tensor:
        shapes = {part.shape for part in parts}
        if len(shapes) == 1:
            return torch.stack(list(parts))
        if len({len(shape) for shape in shapes}) > 1:
            raise InputError(f"sample{name}", sorted(map(tuple, shapes)), "one number of dimensions")
        if target and (parts[0].is_floating_point() or parts[0].dtype == torch.bool):
            raise InputError(
                f"sample{name}",
                f"{parts[0].dtype} targets of different sizes",
                "targets of one size, or integers, which the loss can ignore where they fill up",
                "Give a collate_fn that fills them up as your loss wants it.",
            )
        value = (
            self.ignore if target else 0 if name.endswith(("mask']", "token_type_ids']")) else self.padding
        )
        largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
        batch = parts[0].new_full((len(parts), *largest), value)
        for row, part in zip(batch, parts, strict=True):
            row[tuple(slice(size) for size in part.shape)] = part
        return batch


def _is_structure(value: Any) -> bool:
    """Tells whether the value is a container of tensors and not a tensor itself."""
    return isinstance(value, Mapping | tuple) or (isinstance(value, list) and not _is_vector(value))


def _is_vector(value: list[Any]) -> bool:
    return all(_is_vector(own) if isinstance(own, list) else isinstance(own, int | float) for own in value)


def _columns(samples: Sequence[Any]) -> list[tuple[Any, ...]]:
    width = len(samples[0])
    for sample in samples:
        if not isinstance(sample, tuple | list) or len(sample) != width:
            raise InputError("sample", sample, f"a tuple of {width} entries, as other samples are")
    return list(zip(*samples, strict=True))


def _tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    try:
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"sample{name}",
            value,
            "a tensor, an array or numbers",
            "Leave it out of the samples, or give a collate_fn that makes a tensor of it.",
        ) from error
