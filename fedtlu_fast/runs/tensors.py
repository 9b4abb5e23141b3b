"""Files of tensors by name, and a model's flat vectors in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load, load_file
from torch import Tensor

from fedtlu_fast.layout import Layer, ParameterLayout


def model_tensors(layout: ParameterLayout, params: Tensor, buffers: Tensor) -> dict[str, Tensor]:
    """A model's parameters and buffers by name, copied to the CPU.

    Args:
        layout: of the model.
        params: [P] float32.
        buffers: [Q] float32.
    """
    tensors = {**layout.views(params), **layout.buffer_views(buffers)}
    # Copied one by one: safetensors refuses tensors that share memory.
    return {name: tensor.cpu().clone() for name, tensor in tensors.items()}


def joined(slots: Sequence[Layer], tensors: Mapping[str, Tensor]) -> Tensor:
    """The flat vector of these layers, or buffers.

    Raises:
        KeyError: a tensor is missing.
    """
    return torch.cat([torch.empty(0), *(tensors[slot.name].reshape(-1) for slot in slots)])


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name.

    Raises:
        OSError: it cannot be read.
        SafetensorError: it is no such file.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:  # safetensors opens no path that is no UTF-8
        return load(path.read_bytes())
    return load_file(path)
