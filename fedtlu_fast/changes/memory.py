"""The tensors of a model in memory, with the interface of the tensors of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fedtlu_fast.changes.files import Checkpoint, Stored
from fedtlu_fast.errors import InputError

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""The names in safetensors of the real dtypes of more than eight bits."""


class _Memory:
    """Tensors by name, with the two methods of an open safetensors file that `Stored` calls."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def get_tensor(self, name: str) -> Tensor:
        return self._tensors[name].detach().cpu()

    def get_slice(self, name: str) -> Tensor:
        return self._tensors[name].detach().cpu()


def held_in_memory(
    field: str, model: nn.Module | Mapping[str, Tensor], module: nn.Module | None
) -> Checkpoint:
    """The tensors of a module or a state dict; nothing is copied.

    Args:
        field: ``BEFORE`` or ``AFTER``, for messages.
        model: a module (its trainable parameters count) or a mapping (all its tensors count).
        module: the other side if it is a module: tensors of a mapping that are in the module's state dict,
            but are not trainable parameters of it, are left out.

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
        # Tied tensors count once, though a state dict has a separate object for each name.
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        own = first.setdefault(place, name)
        stored[name] = Stored(field, memory, own, tuple(tensor.shape), _dtype(tensor), alias=own != name)
    return Checkpoint(field, f"{type(model).__name__} of {len(stored)} tensors", stored, (), ordered=True)


def _trainable(module: nn.Module) -> dict[str, Tensor]:
    return {name: param for name, param in module.named_parameters() if param.requires_grad}


def _dtype(tensor: Tensor) -> str:
    """The dtype's name in safetensors; for whole and complex numbers, torch's name."""
    name = str(tensor.dtype).removeprefix("torch.")
    return DTYPES.get(name) or (f"F8_{name}" if name.startswith("float8") else name)
