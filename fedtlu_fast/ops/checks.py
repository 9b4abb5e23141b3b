"""Checks the arguments of operations for all backends: whether dtypes, shapes and devices fit together.

Each check raises `InputError` with the argument's name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.errors import InputError

STATS_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
UPDATE_DTYPES = (torch.float32, torch.float64)
# An addend may be narrower than its target: dtype of the addend -> dtype of the target.
TARGETS = dict.fromkeys(STATS_DTYPES, torch.float32) | {torch.float64: torch.float64}


def readable(field: str, given: Any) -> Tensor:
    """Returns the tensor, or an equal one, such that the kernels can read its numbers from memory.

    Sparse and MKL-DNN tensors are made dense, and a negation that torch has put off is carried out.

    Raises:
        InputError: The argument is not a tensor, or has no memory of its own because it is fake, freed,
            nested, a wrapper, or inside ``torch.vmap`` or another transform.
    """
    if not isinstance(given, Tensor):
        fix = "Give torch.from_numpy(array)." if isinstance(given, np.ndarray) else ""
        raise InputError(field, shorten_type(given), "a torch.Tensor", fix)
    try:
        tensor = given if given.layout is torch.strided else given.detach().to_dense()
        if tensor.is_neg():
            tensor = tensor.detach().resolve_neg()
        if has_memory(tensor):
            return tensor
        why = "whose memory was freed or lies elsewhere"
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        # torch raises these if this kind of tensor lacks an operation.
        why = f"({str(error).splitlines()[0]})"
    raise InputError(
        field, f"a {type(given).__name__} {why}", "a tensor whose numbers lie in memory", "Give its values."
    )


def has_memory(tensor: Tensor) -> bool:
    """Tells whether all elements of a strided tensor lie in memory that it holds, on its device.

    A tensor on the meta device passes, because `resolve` raises a better error: no backend runs there.
    """
    try:
        storage = tensor.untyped_storage()
    except NotImplementedError:  # inside torch.vmap and other transforms
        return False
    if not tensor.numel() or tensor.device.type == "meta":
        return True
    needed = tensor.storage_offset() * tensor.element_size() + reach(tensor)
    return storage.nbytes() >= needed and bool(tensor.data_ptr()) and storage.device == tensor.device


def shorten_type(given: Any) -> str:
    """Returns the name of the argument's type, for messages."""
    return "None" if given is None else type(given).__name__


def vectors(field: str, given: Any) -> Tensor | list[Tensor]:
    """Returns a matrix unchanged, and the items of any other iterable, such as a generator, as a list.

    Raises:
        InputError: The argument is not iterable, is empty, or is a mapping. (The order of a mapping does not
            say which weight belongs to which client.)
    """
    expected = "a matrix [K, P], or K vectors [P]"
    if isinstance(given, Tensor):
        found: Tensor | list[Tensor] = readable(field, given)
        if given.dim() != 2:
            raise InputError(f"{field}.shape", tuple(given.shape), expected)
    elif isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping)):
        found = [readable(f"{field}[{index}]", item) for index, item in enumerate(given)]
    else:
        raise InputError(field, shorten_type(given), expected, "Of a mapping, give its values().")
    if not len(found):
        raise InputError(field, "none", "at least one client's vector")
    return found


def layers(field: str, given: Any, names: Sequence[str] | None) -> list[Tensor]:
    """Returns the tensors of layers, each made `readable`.

    There may be 100,000 layers, so `names` is read only for an error.

    Raises:
        InputError: The argument is not iterable, or is a mapping; or see `readable`, where the error's field
            holds the layer's name or index.
    """
    expected = "tensors, one for each layer"
    if isinstance(given, Mapping):
        raise InputError(field, shorten_type(given), expected, "Give its values().")
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes)):
        raise InputError(field, shorten_type(given), expected)
    if isinstance(given, Tensor) and not given.dim():
        raise InputError(f"{field}.shape", (), expected, "Give [tensor].")
    found: list[Tensor] = []
    for item in given:
        plain = type(item) is Tensor and item.layout is torch.strided and not item.is_neg()
        if not (plain and not item.is_nested and has_memory(item)):
            at = len(found)
            item = readable(f"{field}[{names[at] if names else at!r}]", item)
        found.append(item)
    return found


def numbers(field: str, given: Any, count: int) -> list[float]:
    """Returns one finite number per client, K float64 numbers.

    Raises:
        InputError: The argument does not hold numbers, not exactly K of them, or one is not finite.
    """
    if isinstance(given, Tensor):
        given = readable(field, given)
    elif not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping)):
        raise InputError(field, shorten_type(given), f"{count} numbers, one for each client")
    try:
        values, shape = _floats(given)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(field, given, f"{count} real numbers, one for each client") from None
    if shape != (count,):
        raise InputError(f"{field}.shape", shape, f"({count},), one for each client")
    if not all(map(math.isfinite, values)):
        raise InputError(field, values, "finite numbers")
    return values


def _floats(given: Tensor | Iterable[Any]) -> tuple[list[float], tuple[int, ...]]:
    """Returns real numbers as floats, and their shape."""
    if not isinstance(given, Tensor):
        given = list(given)
        if {float, int}.issuperset(map(type, given)):
            return list(map(float, given)), (len(given),)  # several times faster than torch
    elif given.is_complex():
        raise TypeError
    values = torch.as_tensor(given, dtype=torch.float64, device="cpu").detach()
    return values.tolist(), tuple(values.shape)


def number(field: str, given: Any) -> float:
    """Returns a finite number as a float.

    Raises:
        InputError: The argument is not a finite number.
    """
    try:
        value = float(given)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        value = math.nan
    if isinstance(given, (str, bytes)) or not math.isfinite(value):
        raise InputError(field, given, "a finite number")
    return value


def check_dtype(field: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    """Raises an error unless the tensor has one of these dtypes."""
    if tensor.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise InputError(f"{field}.dtype", str(tensor.dtype), f"one of {names}")


def check_flat(field: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    """Raises an error unless the tensor is a vector of one of these dtypes; any stride is accepted."""
    check_dtype(field, tensor, dtypes)
    if tensor.dim() != 1:
        raise InputError(
            f"{field}.shape", tuple(tensor.shape), "a flat vector [P]", "Use tensor.reshape(-1)."
        )


def check_target(field: str, tensor: Tensor) -> None:
    """Raises an error unless the tensor can be updated in place.

    Such a tensor is a plain contiguous vector with one of the `UPDATE_DTYPES`.
    A leaf that requires a gradient is accepted, as an optimizer would change it. A tensor with a gradient
    history is refused, because autograd would then compute its gradient from wrong numbers.
    """
    if readable(field, tensor) is not tensor:
        raise InputError(
            field,
            f"{tensor.layout} without memory of its own",
            "a plain vector, since it is changed in place",
        )
    check_flat(field, tensor, UPDATE_DTYPES)
    if not tensor.is_contiguous():
        raise InputError(
            f"{field}.stride", tensor.stride(), "a contiguous vector, since it is changed in place"
        )
    if tensor.requires_grad and not tensor.is_leaf and torch.is_grad_enabled():
        raise InputError(
            f"{field}.grad_fn",
            str(tensor.grad_fn),
            "a vector without a gradient history",
            "Call the operation in torch.no_grad().",
        )
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        raise InputError(
            field,
            "an inference tensor",
            "a tensor that may be changed in place",
            "Call the operation in torch.inference_mode().",
        )


def changed(tensor: Tensor) -> None:
    """Reports to autograd that a target was changed, as torch's own in-place operations do."""
    if not tensor.is_inference():  # inference tensors have no version
        torch.autograd.graph.increment_version(tensor)


def reach(tensor: Tensor) -> int:
    """Returns the number of bytes from a strided tensor's first element to the end of its last one."""
    # Nearly every tensor is contiguous, and this is asked several times for every client.
    if tensor.is_contiguous() and not tensor.is_nested:
        return tensor.numel() * tensor.element_size()
    if not tensor.numel():
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


def overlap(tensor: Tensor, target: Tensor) -> bool:
    """Tells whether two tensors may share memory."""
    return _overlap(_span(tensor), _span(target))


def check_apart(field: str, tensor: Tensor, target_field: str, target: Tensor) -> None:
    """Raises an error if an input shares only a part of the target's memory; it may share all of it."""
    own, written = _span(tensor), _span(target)
    if own != written and _overlap(own, written):
        raise InputError(
            field,
            "a view that overlaps",
            f"memory that it shares with {target_field} completely or not at all",
            "Clone it.",
        )


def _span(tensor: Tensor) -> tuple[int, int]:
    """Returns the addresses of a strided tensor's first byte and of the end of its last element."""
    first = tensor.data_ptr()
    return first, first + reach(tensor)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def check_like(field: str, tensor: Tensor, target: Tensor) -> None:
    """Raises an error unless the tensor has the shape, dtype and device of `target`."""
    if (tensor.shape, tensor.dtype, tensor.device) != (target.shape, target.dtype, target.device):
        given = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        raise InputError(field, given, f"{target.dtype} {tuple(target.shape)} on {target.device}")


def check_addend(field: str, tensor: Tensor, target: Tensor) -> None:
    """Raises an error unless the tensor can be added to `target` (see `TARGETS`)."""
    check_flat(field, tensor, STATS_DTYPES)
    if (tensor.shape, tensor.device) != (target.shape, target.device):
        given = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        raise InputError(field, given, f"{tuple(target.shape)} on {target.device}")
    if TARGETS[tensor.dtype] != target.dtype:
        fitting = (dtype for dtype, wide in TARGETS.items() if wide == target.dtype)
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in fitting)
        raise InputError(f"{field}.dtype", str(tensor.dtype), f"one of {names}, to go into {target.dtype}")


def bounds(offsets: Tensor, length: int) -> Tensor:
    """Returns the offsets as a plain vector.

    Raises:
        InputError: They are not the bounds of layers in a vector of this length.
    """
    if (
        readable("offsets", offsets) is not offsets
        or offsets.dtype != torch.int64
        or offsets.device.type != "cpu"
        or offsets.dim() != 1
        or not offsets.numel()
    ):
        given = f"{offsets.dtype} {tuple(offsets.shape)} on {offsets.device}"
        raise InputError("offsets", given, "an int64 CPU vector [L + 1]")
    array = np.ascontiguousarray(offsets.numpy())  # several times faster than torch on a short array
    if array[0] < 0 or array[-1] > length or (array[1:] < array[:-1]).any():
        raise InputError("offsets", offsets.tolist(), f"non-decreasing numbers from 0 to {length}")
    return torch.from_numpy(array)


def client_stats(given: object) -> bool | Literal["norms"]:
    """Returns what is asked of every client.

    Raises:
        InputError: It is neither a bool nor "norms".
    """
    if isinstance(given, bool):
        return given
    if isinstance(given, str) and given == "norms":
        return "norms"  # the extension takes no subclass of str
    raise InputError("client_stats", given, 'True, False or "norms"')
