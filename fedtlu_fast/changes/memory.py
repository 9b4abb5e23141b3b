"""Gives the tensors of a model in memory the interface of the tensors of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fedtlu_fast.changes.files import Checkpoint, Stored
from fedtlu_fast.errors import InputError

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""Maps torch's names of floating-point dtypes of more than eight bits to those of safetensors."""


class _Memory:
    """Holds tensors by name, with the two methods of an open safetensors file that `Stored` calls."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def get_tensor(self, name: str) -> Tensor:
        return self._tensors[name].detach().cpu()

    def get_slice(self, name: str) -> Tensor:
        return self._tensors[name].detach().cpu()


def held_in_memory(
    field: str, model: nn.Module | Mapping[str, Tensor], module: nn.Module | None
) -> Checkpoint:
    """Returns the tensors of a module or a state dict, without copying them.

    Args:
        field: ``BEFORE`` or ``AFTER``, for messages.
        model: a module, of which the trainable parameters are taken, or a mapping, of which all tensors are.
        module: the other side if it is a module, else None. Tensors of a mapping that are in this module's
            state dict but are not its trainable parameters are left out.

    Raises:
        InputError: `model` is neither a module nor a mapping from names to tensors.
    """
    if isinstance(model, nn.Module):
        tensors: dict[str, Any] = _trainable(model)
    elif isinstance(model, Mapping):
        frozen = set() if module is None else module.state_dict().keys() - _trainable(module).keys()
        tensors = {name: tensor for name, tensor in model.items() if name not in frozen}
    else:
        expected = "a torch.nn.Module, a mapping from names to tensors, or a path"
        raise InputError(field, model, expected)
    memory, first = _Memory(tensors), dict[tuple[Any, ...], str]()
    stored: dict[str, Stored] = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{field}: {name}", tensor, "a tensor, under a name")
        # Tied tensors count once, although a state dict has a separate object for each name.
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        own = first.setdefault(place, name)
        stored[name] = Stored(field, memory, own, tuple(tensor.shape), _dtype(tensor), alias=own != name)
    return Checkpoint(field, f"{type(model).__name__} of {len(stored)} tensors", stored, (), ordered=True)


def _trainable(module: nn.Module) -> dict[str, Tensor]:
    return {name: param for name, param in module.named_parameters() if param.requires_grad}


def _dtype(tensor: Tensor) -> str:
    """Returns the dtype's name in safetensors; for integers and complex numbers, torch's name."""
    name = str(tensor.dtype).removeprefix("torch.")
    return DTYPES.get(name) or (f"F8_{name}" if name.startswith("float8") else name)
