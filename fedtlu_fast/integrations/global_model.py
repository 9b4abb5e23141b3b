"""The server's half of a round for tools that train the clients themselves: aggregate, score, choose, apply.

`GlobalModel` holds a model as arrays and updates it by what clients send, one client after another. Its
memory does not grow with the cohort: it has the parameters and the running sum of the mean, in whose place
the change is scored and applied. Other rules and selectors that measure single clients take one vector more,
and rules such as Krum keep every client's vector, as in a simulation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedtlu_fast.aggregation import OptimizerState
from fedtlu_fast.changes.buffers import buffers as buffers_among
from fedtlu_fast.changes.memory import held_in_memory
from fedtlu_fast.data.population import as_tensor
from fedtlu_fast.errors import InputError, listed
from fedtlu_fast.integrations.arrays import Arrays, fill_
from fedtlu_fast.integrations.layer_update import LayerUpdate
from fedtlu_fast.layout import Layer, ParameterLayout
from fedtlu_fast.privacy.private_mean import check_buffers
from fedtlu_fast.scoring.units import scored_layout
from fedtlu_fast.selection import server_room


class GlobalModel:
    """A model that a server updates, block by block, by what clients send.

    Attributes:
        update: how the server makes its step.
        layout: layers, blocks and groups of the parameters.
        room: how many blocks of each group may be chosen.
        scored: the layout with the layers that make the blocks' scores.
        params: [P] float32, the parameters now.
        buffers: [Q] float32, the floating-point buffers now.
        others: arrays that are neither, such as counters, by name.
        optimizer: the server optimizer's state.
        remembered: the tensors that the aggregation rule remembers, by name.
        selector_memory: the tensors that the selector remembers, by name.
        last_choice: [B] bool, the blocks that the last round changed; None before the first.
    """

    def __init__(self, arrays: Arrays, update: LayerUpdate, model: nn.Module | None = None) -> None:
        """Finds the parameters, buffers and blocks.

        Args:
            arrays: the whole model, such as a state dict's arrays.
            update: how the server makes its step.
            model: says which arrays are trainable parameters, which are buffers and which are tied. Without
                it, floating-point arrays are parameters unless their names or contents are those of buffers
                (see `changes.buffers`).

        Raises:
            InputError: a parameter is missing or has another shape, or the blocks do not fit the settings.
        """
        self.update = update
        if model is None:
            self.layout = _layout_of(arrays, update)
            self._tied: dict[str, str] = {}
        else:
            self.layout = ParameterLayout.from_module(model, update.granularity, blocks=update.blocks)
            self._tied = _tied_names(model)
        selector = update.selection
        self.room = server_room(selector, self.layout, update.keep)
        self.scored = scored_layout(self.layout, selector.scored_layers)
        self.params, self.buffers = torch.empty(self.layout.size), torch.empty(_size(self.layout.buffers))
        self.optimizer: OptimizerState = {}
        self.remembered: Mapping[str, Tensor] = {}
        self.selector_memory: Mapping[str, Tensor] = {}
        self.last_choice: Tensor | None = None
        if update.privacy is not None:
            check_buffers(self.layout)
        self.load(arrays)

    def load(self, arrays: Arrays) -> None:
        """Takes over all parameters and buffers from arrays; others are remembered as they are.

        Raises:
            InputError: one is missing or has another shape.
        """
        fill_(self.layout.views(self.params), arrays, "arrays")
        fill_(self.layout.buffer_views(self.buffers), arrays, "arrays")
        own = {*self.layout.names, *(buffer.name for buffer in self.layout.buffers), *self._tied}
        self._dtypes = {name: arrays[name].dtype for name in arrays}
        self.others = {name: np.array(arrays[name]) for name in arrays if name not in own}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns the whole model under the names and in the order in which `load` got them.

        Every array has the dtype that `load` got; float32 arrays share memory with this model, and the next
        round changes them.
        """
        held = self.layout.views(self.params) | self.layout.buffer_views(self.buffers)
        found = {name: tensor.numpy() for name, tensor in held.items()} | self.others
        return {
            name: found[self._tied.get(name, name)].astype(dtype, copy=False)
            for name, dtype in self._dtypes.items()
        }

    def names_of(self, blocks: Collection[int]) -> list[str]:
        """Returns the names of the layers of some blocks, and of all buffers and other arrays."""
        mask = self.layout.layer_mask(blocks).tolist()
        layers = [name for name, held in zip(self.layout.names, mask, strict=True) if held]
        return [*layers, *(buffer.name for buffer in self.layout.buffers), *self.others]


def _layout_of(arrays: Arrays, update: LayerUpdate) -> ParameterLayout:
    """Finds parameters and buffers among arrays by their names and contents."""
    floating = {name: array for name, array in arrays.items() if np.issubdtype(array.dtype, np.floating)}
    if not floating:
        raise InputError("arrays", listed(list(arrays)), "a model with floating-point arrays")
    native = {name: np.asarray(array, array.dtype.newbyteorder("=")) for name, array in floating.items()}
    tensors = {name: as_tensor(array) for name, array in native.items()}
    kept = buffers_among(held_in_memory("arrays", tensors, None).tensors)
    shapes = {name: tuple(array.shape) for name, array in floating.items()}
    return ParameterLayout.from_shapes(
        {name: shape for name, shape in shapes.items() if name not in kept},
        update.granularity,
        buffers={name: shape for name, shape in shapes.items() if name in kept},
        blocks=update.blocks,
    )


def _tied_names(model: nn.Module) -> dict[str, str]:
    """Maps the further names of tied parameters to the first."""
    first: dict[nn.Parameter, str] = {}
    names = model.named_parameters(remove_duplicate=False)
    found = {name: first.setdefault(parameter, name) for name, parameter in names}
    return {name: own for name, own in found.items() if name != own}


def _size(slots: tuple[Layer, ...]) -> int:
    return slots[-1].offset + slots[-1].numel if slots else 0
