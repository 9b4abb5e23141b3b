"""Gives the tensors of a model in memory the interface of the tensors of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fedtlu_fast.changes.stored import DTYPES, Checkpoint, Stored
from fedtlu_fast.errors import InputError


class Memory:
    """Holds tensors by name.

    Attributes:
        tensors: the tensors, which are not copied.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self._dense: tuple[str, Tensor] = ("", Tensor())

    def flat(self, name: str, start: int, stop: int) -> Tensor:
        """Returns the elements ``start:stop`` of a tensor; a copy only if it is not contiguous on the CPU."""
        tensor = self.tensors[name].detach()
        if not tensor.is_contiguous():
            # The copy of one tensor is kept, because its pieces are read one after another.
            of, dense = self._dense
            if of != name:
                dense = tensor.contiguous()
                self._dense = (name, dense)  # in one step, because several threads read
            tensor = dense
        return tensor.view(-1)[start:stop].cpu()

    def stored(self, field: str) -> dict[str, Stored]:
        """Returns all tensors under their names; a tied tensor counts once.

        Raises:
            InputError: A name is not text, or a value is not a tensor.
        """
        first = dict[tuple[Any, ...], str]()
        stored: dict[str, Stored] = {}
        for name, tensor in self.tensors.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise InputError(f"{field}: {name}", tensor, "a tensor, under a name")
            # A state dict has a separate object for each name of a tied tensor.
            place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
            own = first.setdefault(place, name)
            shape, dtype = tuple(tensor.shape), _dtype(tensor)
            stored[name] = Stored(field, self, own, shape, dtype, alias=own != name)
        return stored


def held_in_memory(
    field: str, model: nn.Module | Mapping[str, Tensor], module: nn.Module | None
) -> Checkpoint:
    """Returns the tensors of a module or a state dict, without copying them.

    Args:
        field: ``BEFORE``, ``AFTER`` or ``BASE``, for messages.
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
        expected = "a torch.nn.Module, a mapping from names to tensors, a path, or a name on the hub"
        raise InputError(field, model, expected)
    stored = Memory(tensors).stored(field)
    return Checkpoint(field, f"{type(model).__name__} of {len(stored)} tensors", stored, ordered=True)


def _trainable(module: nn.Module) -> dict[str, Tensor]:
    return {name: param for name, param in module.named_parameters() if param.requires_grad}


def _dtype(tensor: Tensor) -> str:
    """Returns the dtype's name in safetensors; for integers and complex numbers, torch's name."""
    name = str(tensor.dtype).removeprefix("torch.")
    return DTYPES.get(name) or (f"F8_{name}" if name.startswith("float8") else name)
