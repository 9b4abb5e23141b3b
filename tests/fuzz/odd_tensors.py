"""Spoils the tensors of a call, and tells by torch's own account whether an argument is plain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fuzz.memory import Dice
from torch import Tensor

ODD = (None, 3, "float32", b"1234", (), [], {}, object(), 10**400, 1j, math.nan, np.ones(3), "norms\0")


class Own(Tensor):
    """Subclasses Tensor."""


class Wrapped:
    """Marks a tensor that the call gets as torch.vmap's wrapper of it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _resized(tensor: Tensor, dice: Dice) -> Tensor:
    """Returns a tensor that claims more elements than its storage still holds."""
    own = tensor.detach().clone()
    held = own.untyped_storage()
    held.resize_(dice.choice((0, held.nbytes() // 2, max(0, held.nbytes() - 1))))
    return own


def _quantised(tensor: Tensor) -> Tensor:
    return torch.quantize_per_tensor(tensor.detach().float(), 0.1, 0, torch.qint8)


def _negated(tensor: Tensor) -> Tensor:
    plain = tensor.detach().float()
    return torch.complex(plain, plain).conj().imag


def _grown(tensor: Tensor, dice: Dice) -> Tensor:
    plain = tensor.detach().reshape(-1)
    return torch.cat([plain, plain.new_ones(dice.choice((1, 64)))])


KINDS: dict[str, Callable[[Tensor, Dice], Any]] = {
    "strided": lambda t, _: t.detach().reshape(-1).repeat_interleave(2)[::2],
    "backwards": lambda t, _: t.detach().numpy()[::-1],
    "expanded": lambda t, _: t.detach().reshape(-1)[:1].expand(t.shape),
    "transposed": lambda t, _: torch.stack([t.detach().reshape(-1)] * 2).T,
    "a subclass": lambda t, _: t.as_subclass(Own),
    "a parameter": lambda t, _: torch.nn.Parameter(t.detach()),
    "a leaf": lambda t, _: t.detach().clone().requires_grad_(),
    "with a history": lambda t, _: t.detach().clone().requires_grad_() * 1,
    "sparse": lambda t, _: t.detach().to_sparse(),
    "elsewhere": lambda t, _: t.detach().to("meta"),
    "quantised": lambda t, _: _quantised(t),
    "negated": lambda t, _: _negated(t),
    "conjugate": lambda t, _: t.detach().to(torch.complex64).conj(),
    "another dtype": lambda t, d: t.detach().to(
        d.choice((torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.int8,
                  torch.bool, torch.complex64, torch.uint8, torch.float8_e4m3fn))
    ),
    "freed": _resized,
    "inference": lambda t, _: _inferred(t),
    "wrapped": lambda t, _: Wrapped(t.detach().clone()),
    "nested": lambda t, _: torch.nested.nested_tensor([t.detach().reshape(-1)] * 2),
    "mkldnn": lambda t, _: t.detach().float().to_mkldnn(),
    "an array": lambda t, _: t.detach().numpy(),
    "a storage": lambda t, _: t.untyped_storage(),
    "longer": _grown,
    "shorter": lambda t, d: t.detach().reshape(-1)[: d.randrange(t.numel() + 1)],
    "a matrix": lambda t, _: t.detach().reshape(1, -1),
    "one number": lambda t, _: t.detach().reshape(-1)[0],
    "bits": lambda t, _: t.detach().view(torch.uint8),
}  # fmt: skip


def _inferred(tensor: Tensor) -> Tensor:
    with torch.inference_mode():
        return tensor.clone()


def spoil(args: dict[str, Any], target: Tensor | None, dice: Dice) -> None:
    """Gives one argument a fault, or something that is almost one."""
    name = dice.choice(list(args))
    given = args[name]
    if isinstance(given, (list, tuple)) and given and dice.random() < 0.8:
        items = list(given)
        at = dice.randrange(len(items))
        items[at] = _odd(items[at], target, dice)
        args[name] = tuple(items) if dice.often() else items
    else:
        args[name] = _odd(given, target, dice)


def _odd(given: Any, target: Tensor | None, dice: Dice) -> Any:
    if not isinstance(given, Tensor) or dice.rarely():
        return dice.choice(ODD)
    if given.dtype is torch.int64 and given.numel() and dice.often():
        changed = given.detach().clone()
        changed[dice.randrange(len(changed))] = dice.choice((-1, 2**63 - 1, -(2**63), 2**40, 1))
        return changed
    if target is not None and given is not target and target.numel() > 2 and dice.random() < 0.3:
        # Over the target, in part or a few bytes off.
        raw, width = target.detach().view(torch.uint8), given.element_size()
        start = dice.randrange(0, raw.numel(), width)
        try:
            return raw[start : start + min(given.numel(), (raw.numel() - start) // width) * width].view(
                given.dtype
            )
        except RuntimeError:  # not aligned to the storage
            return given
    try:
        return KINDS[dice.choice(list(KINDS))](given, dice)
    except (RuntimeError, NotImplementedError, IndexError, TypeError, ValueError):
        return given  # torch cannot make one of this tensor


def inside(args: dict[str, Any], call: Callable[[], Any]) -> Any:
    """Calls; within torch.vmap if an argument is to be its wrapper."""
    names = [name for name, value in args.items() if isinstance(value, Wrapped)]
    if not names:
        return call()
    name, found = names[0], []

    def mapped(tensor: Tensor) -> Tensor:
        args[name] = tensor
        found.append(call())
        return tensor

    marked = args[name]
    try:
        torch.vmap(mapped)(marked.tensor.unsqueeze(0))
    finally:
        args[name] = marked
    return found[0]


def plain(given: Any) -> bool:
    """Tells whether all tensors of an argument are plain (see csrc/python/tensors.h); an array is not."""
    if isinstance(given, (list, tuple)):
        return all(map(plain, given))
    if isinstance(given, (Wrapped, np.ndarray)):
        return False
    if not isinstance(given, Tensor):
        return True
    if (
        type(given) not in (Tensor, torch.nn.Parameter)
        or given.layout is not torch.strided
        or given.is_nested
    ):
        return False
    if not given.is_cpu or given.is_quantized or given.is_neg() or given.is_conj():
        return False
    rows = given.dim() == 2 and all(row.is_contiguous() for row in given)
    end = given.storage_offset() + 1
    end += sum((size - 1) * stride for size, stride in zip(given.shape, given.stride(), strict=True))
    held = given.untyped_storage().nbytes() // given.element_size()
    return (given.is_contiguous() or rows) and (not given.numel() or held >= end)


def fit(args: dict[str, Any], target: Any) -> bool:
    """Tells whether all arguments are plain, and the target may be changed and shares no part of an input."""
    if not all(map(plain, args.values())):
        return False
    if not isinstance(target, Tensor):
        return True
    lists = [value for value in args.values() if isinstance(value, (list, tuple))]
    # Weights are copied before anything is written.
    inputs = [value for name, value in args.items() if name != "weights"]
    inputs += [item for items in lists for item in items]
    return not target.requires_grad and all(
        given is target or _beside(given, target) for given in inputs if isinstance(given, Tensor)
    )


def _beside(given: Tensor, target: Tensor) -> bool:
    if given.dtype in (torch.int64, torch.bool) or given.dim() != 1:
        return True  # copied first, or looked at row by row
    first, second = given.data_ptr(), target.data_ptr()
    size, written = (each.numel() * each.element_size() for each in (given, target))
    return (first, size) == (second, written) or first + size <= second or second + written <= first


def write(target: Tensor, before: list[Tensor], blocks: list[Tensor]) -> None:
    """Copies the target's bytes into the picture of the blocks from before, where it lies in one of them."""
    first, size = target.data_ptr(), target.numel() * target.element_size()
    for old, block in zip(before, blocks, strict=True):
        at = first - block.data_ptr()
        if size and at >= 0 and at + size <= block.numel():
            old[at : at + size] = block[at : at + size]


def described(args: dict[str, Any]) -> str:
    """Describes the arguments of a call in a line."""
    return ", ".join(f"{name}={_described(value)}" for name, value in args.items())


def _described(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_described, value))}]"
    if isinstance(value, Tensor):
        shape = "nested" if value.is_nested else tuple(value.shape)  # nested tensors have no shape
        return f"{type(value).__name__}({value.dtype}, {shape})"
    return repr(value)[:40]
