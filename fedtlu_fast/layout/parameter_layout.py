"""A model as one flat vector: its layers, the blocks they form, and the groups of like blocks.

A *layer* is one trainable tensor (W_i in Eq. 1); layers are scored. A *block* is the unit of choice: one
layer, the layers of one module, or the layers of one repeated part of the model, depending on `granularity`.
A *group* holds like blocks, which are compared with each other. A *unique* block has no like and is in no
group.

This is the only place where offsets are computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import get_args

import torch
from torch import Tensor, nn

from fedtlu_fast.errors import InputError, check_kind, not_one_of
from fedtlu_fast.layout.blocks import Granularity, discover
from fedtlu_fast.layout.named_blocks import Patterns
from fedtlu_fast.layout.repetition import Shape
from fedtlu_fast.layout.titles import titles_of
from fedtlu_fast.torch_state import without_modes

DEEPEST = 200
"""The deepest nesting of modules that a name may have; a damaged checkpoint may have any name."""


@dataclass(frozen=True)
class Layer:
    """One tensor's place in the flat vector: elements ``offset : offset + numel``."""

    name: str
    shape: Shape
    offset: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Block:
    """A unit of choice: its name and the indices of its layers."""

    name: str
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Like blocks, which are compared only with each other.

    Attributes:
        name: their common name, with ``*`` where their names differ.
        blocks: indices of the blocks, ascending.
        by_shape: whether the blocks are alike only because they have the same shape.
    """

    name: str
    blocks: tuple[int, ...]
    by_shape: bool = False


@dataclass(frozen=True)
class ParameterLayout:
    """The place of every trainable parameter in the flat vector, the blocks, and the groups of like blocks.

    Tied parameters appear once. Frozen parameters are not in the vector; they stay in the model. Buffers of
    floating dtype (BatchNorm's statistics) form a second vector, whose places are in `buffers`.

    Attributes:
        layers: L trainable tensors in the order of `named_parameters`.
        blocks: B blocks; every layer is in exactly one of them.
        groups: groups of two or more like blocks.
        buffers: places of the floating-point buffers in the buffer vector.
        granularity: the kind of blocks, ``block``, ``module`` or ``tensor``.
    """

    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]
    groups: tuple[Group, ...]
    buffers: tuple[Layer, ...]
    granularity: Granularity

    @classmethod
    def from_module(
        cls, model: nn.Module, granularity: Granularity = "block", *, blocks: Patterns = ()
    ) -> ParameterLayout:
        """Makes the layout of a model's trainable parameters.

        Args:
            model: any module with at least one trainable floating-point parameter.
            granularity: the kind of blocks. ``block``: a repeated part of the model; ``module``: the
                parameters that one module owns; ``tensor``: a single parameter.
            blocks: patterns of dotted names, such as ``down.*``, in which ``*`` matches within one part of a
                name. Every module that matches is a block, and the modules that match one pattern are a
                group, whatever their shapes. Blocks of the other parameters are found as without patterns.

        Raises:
            InputError: there is no trainable parameter; a parameter is complex or not initialised; a pattern
                matches nothing; or two patterns match the same parameter.
        """
        check_kind("model", model, nn.Module, "a torch.nn.Module, not its class or its parameters")
        named = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
        if not named:
            frozen = sum(1 for _ in model.parameters())
            raise InputError(
                "model",
                f"{type(model).__name__} with {frozen} parameters, all of them frozen"
                if frozen
                else f"{type(model).__name__} without parameters",
                "at least one trainable parameter",
                "Set requires_grad on the parameters to train.",
            )
        for name, param in named:
            if isinstance(param, nn.UninitializedParameter):
                raise InputError(
                    f"model.{name}", "an uninitialised (lazy) parameter", "a shape", "Run the model once."
                )
            if not param.is_floating_point():
                raise InputError(f"model.{name}.dtype", str(param.dtype), "a real floating-point parameter")
        shapes = {name: tuple(param.shape) for name, param in named}
        held = {name: tuple(buffer.shape) for name, buffer in _buffers(model)}
        return cls.from_shapes(shapes, granularity, buffers=held, blocks=blocks)

    @classmethod
    def from_shapes(
        cls,
        shapes: Mapping[str, Shape],
        granularity: Granularity = "block",
        *,
        buffers: Mapping[str, Shape] | None = None,
        blocks: Patterns = (),
    ) -> ParameterLayout:
        """Makes the layout of tensors from their dotted names and shapes, such as those of a checkpoint.

        The other arguments are those of `from_module`.

        Raises:
            InputError: there is no tensor, the granularity is unknown, a name cannot belong to a module tree,
                a shape is not a tuple of whole numbers, or a pattern of `blocks` (see `from_module`) does not
                fit.
        """
        if granularity not in get_args(Granularity):
            raise not_one_of("granularity", granularity, get_args(Granularity))
        check_kind("shapes", shapes, Mapping, "a mapping from dotted names to shapes")
        if not shapes:
            raise InputError("shapes", dict(shapes), "at least one tensor")
        for name, shape in shapes.items():
            check_kind("shapes", name, str, "dotted names of tensors")
            sized = isinstance(shape, Sequence) and all(isinstance(n, int) and n >= 0 for n in shape)
            if not sized:
                raise InputError(f"shapes[{name!r}]", shape, "a tuple of whole numbers from 0 on")
            if name.count(".") > DEEPEST:
                raise InputError("shapes", name, f"names with at most {DEEPEST} dots")
        found = discover(list(shapes), list(shapes.values()), granularity, blocks)
        alike: defaultdict[Hashable, list[int]] = defaultdict(list)
        for index, block in enumerate(found):
            alike[block.kind].append(index)
        names = [block.name for block in found]
        members = [tuple(group) for group in alike.values() if len(group) > 1]
        titles = titles_of([[names[index] for index in group] for group in members])
        return cls(
            layers=_place(shapes),
            blocks=tuple(Block(block.name, block.layers) for block in found),
            groups=tuple(
                Group(title, group, found[group[0]].by_shape)
                for title, group in zip(titles, members, strict=True)
            ),
            buffers=_place(buffers or {}),
            granularity=granularity,
        )

    @cached_property
    def size(self) -> int:
        """P, the number of trainable parameters."""
        return self.layers[-1].offset + self.layers[-1].numel

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the L layers."""
        return tuple(layer.name for layer in self.layers)

    @cached_property
    def offsets(self) -> Tensor:
        """[L + 1] int64: layer l is ``vector[offsets[l]:offsets[l + 1]]``."""
        ends = [*(layer.offset for layer in self.layers), self.size]
        return torch.tensor(ends, dtype=torch.int64, device="cpu")

    @cached_property
    def unique(self) -> tuple[int, ...]:
        """Indices of the unique blocks, which have no like: usually embeddings, head and final norm."""
        grouped = {block for group in self.groups for block in group.blocks}
        return tuple(index for index in range(len(self.blocks)) if index not in grouped)

    @cached_property
    def grouped_share(self) -> float:
        """The share of the parameters that are in blocks of a group, among which a selector chooses."""
        sizes = self.block_sizes()
        return sum(sizes[block] for group in self.groups for block in group.blocks) / max(1, self.size)

    def block_sizes(self) -> list[int]:
        """Returns [B], the number of parameters of each block."""
        return [sum(self.layers[layer].numel for layer in block.layers) for block in self.blocks]

    @without_modes
    def layer_mask(self, blocks: Iterable[int]) -> Tensor:
        """Returns [L] bool, true for the layers of these blocks."""
        mask = torch.zeros(len(self.layers), dtype=torch.bool)
        for block in blocks:
            mask[list(self.blocks[block].layers)] = True
        return mask

    def runs(self, blocks: Iterable[int]) -> list[slice]:
        """Returns the slices of the flat vector that these blocks fill, in order, with neighbours joined."""
        runs: list[slice] = []
        for layer in self.layer_mask(blocks).nonzero().flatten().tolist():
            first, numel = self.layers[layer].offset, self.layers[layer].numel
            if runs and runs[-1].stop == first:
                runs[-1] = slice(runs[-1].start, first + numel)
            else:
                runs.append(slice(first, first + numel))
        return runs

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """Returns a view of each layer of a flat vector [P], in the layer's shape, by name."""
        return _views(self.layers, vector)

    def buffer_views(self, vector: Tensor) -> dict[str, Tensor]:
        """Returns a view of each buffer of a buffer vector [Q], in the buffer's shape, by name."""
        return _views(self.buffers, vector)

    @without_modes
    def flatten(self, model: nn.Module) -> Tensor:
        """Returns a copy of the model's trainable parameters, [P] float32."""
        params = dict(model.named_parameters())
        self._check(params)
        return torch.cat([params[layer.name].detach().reshape(-1).float() for layer in self.layers])

    def bind_(self, model: nn.Module, vector: Tensor) -> None:
        """Makes the model's trainable parameters views of `vector` [P], so that both share their memory."""
        params = dict(model.named_parameters())
        self._check(params)
        for name, view in self.views(vector).items():
            params[name].data = view

    @without_modes
    def flatten_buffers(self, model: nn.Module) -> Tensor:
        """Returns a copy of the model's floating-point buffers, [Q] float32; Q may be 0."""
        found = dict(_buffers(model))
        device = next(model.parameters()).device
        kept = [found[slot.name].reshape(-1).to(device, torch.float32) for slot in self.buffers]
        return torch.cat([torch.empty(0, dtype=torch.float32, device=device), *kept])

    def load_buffers_(self, model: nn.Module, vector: Tensor) -> None:
        """Copies a buffer vector [Q] into the model's floating-point buffers."""
        found = dict(_buffers(model))
        for name, view in self.buffer_views(vector).items():
            found[name].copy_(view)

    def _check(self, params: Mapping[str, nn.Parameter]) -> None:
        for layer in self.layers:
            given = tuple(params[layer.name].shape) if layer.name in params else "no such parameter"
            if given != layer.shape:
                raise InputError(f"model.{layer.name}", given, f"shape {layer.shape}, as in this layout")


def _buffers(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Returns the persistent floating-point buffers; integer ones (counters, masks) are not learned."""
    kept = model.state_dict(keep_vars=True).keys()
    return [(name, b) for name, b in model.named_buffers() if name in kept and b.is_floating_point()]


def _place(shapes: Mapping[str, Shape]) -> tuple[Layer, ...]:
    layers, offset = [], 0
    for name, shape in shapes.items():
        layers.append(Layer(name, tuple(shape), offset))
        offset += layers[-1].numel
    return tuple(layers)


def _views(slots: Sequence[Layer], vector: Tensor) -> dict[str, Tensor]:
    size = slots[-1].offset + slots[-1].numel if slots else 0
    if vector.shape != (size,):
        raise InputError("vector.shape", tuple(vector.shape), f"({size},), as in this layout")
    return {slot.name: vector[slot.offset : slot.offset + slot.numel].view(slot.shape) for slot in slots}
