"""Makes tensors plain: vectors of the exact type `torch.Tensor`, contiguous where it is needed."""

from __future__ import annotations

from torch import Tensor

from fedtlu_fast.ops import checks

PIECE = 1 << 20
"""A vector that is not contiguous is copied this many elements at a time."""


def bare(tensor: Tensor) -> Tensor:
    """Returns the tensor without a gradient history, and not as a subclass; it has the same memory."""
    tensor = tensor.detach()
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def apart(field: str, tensor: Tensor, target_field: str, target: Tensor) -> Tensor:
    """Returns a vector that an operation may read while it writes `target`.

    A strided vector that may share memory with `target` is copied. A contiguous vector that shares only a
    part of that memory is refused.
    """
    tensor = bare(tensor)
    if not tensor.is_contiguous():
        return tensor.contiguous() if checks.overlap(tensor, target) else tensor
    checks.check_apart(field, tensor, target_field, target)
    return tensor


def pieces_of(*vectors: Tensor | None) -> list[slice]:
    """Returns the slices in which strided vectors are copied: kernels need contiguous memory.

    A copy of a whole vector would double the memory that an operation needs.
    """
    given = [vector for vector in vectors if vector is not None]
    length = len(given[0])
    if length <= PIECE or all(vector.is_contiguous() for vector in given):
        return [slice(None)]
    return [slice(start, start + PIECE) for start in range(0, length, PIECE)]


def core(tensor: Tensor) -> Tensor:
    """Returns the elements of an expanded tensor that have memory of their own."""
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def flat(tensor: Tensor) -> Tensor:
    """Returns the tensor as a contiguous vector."""
    if type(tensor) is Tensor and tensor.dim() == 1 and tensor.is_contiguous() and not tensor.requires_grad:
        return tensor
    return bare(tensor).contiguous().reshape(-1)
