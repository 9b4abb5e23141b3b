"""Sorts the layers of a model into kinds: the same tensor of like blocks, and its role in the block.

A kind is a group of layers that have the same place in like blocks (`layout.blocks`), such as
``h.*.attn.c_attn.weight``; a layer without like is a kind of its own. The role is found from shapes and
places alone (ours):

* A vector in a module that holds no matrix is a ``norm``; any other vector is a ``bias``.
* In a block whose matrices all share one size d, the matrices [a, d] and [d, a] with the largest a > d are
  its ``mlp``. So are the other matrices in the same part of the block (gates and routers).
* The remaining matrices of such a block are its ``attention`` if there are at least two.
* A matrix [n, d] or [d, n] outside of blocks, with n other than d, is an ``embedding or head``.
* All else is a ``matrix`` (two dimensions) or a ``kernel`` (more dimensions, as in convolutions).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedtlu_fast.layout import Block, Group, Layer, ParameterLayout


@dataclass(frozen=True)
class Kind:
    """Layers of one kind.

    Attributes:
        name: the layers' common name, with ``*`` where their names differ.
        role: what the layers are for; see the top of this module. Layers that are alike by shape alone may
            have several roles, separated by commas.
        layers: indices of the layers, in order.
        group: the group of like layers; None for a layer without like.
    """

    name: str
    role: str
    layers: tuple[int, ...]
    group: Group | None


def kinds(layout: ParameterLayout) -> list[Kind]:
    """Returns the kinds of a model's layers, in the order of their first layers."""
    shapes = {layer.name: layer.shape for layer in layout.layers}
    tensors = ParameterLayout.from_shapes(shapes, "tensor")
    blocks = ParameterLayout.from_shapes(shapes, "block")
    roles = _roles(blocks)
    found = [
        Kind(group.name, "", tuple(tensors.blocks[block].layers[0] for block in group.blocks), group)
        for group in tensors.groups
    ]
    found += [
        Kind(tensors.blocks[block].name, "", tensors.blocks[block].layers, None) for block in tensors.unique
    ]
    # Unique blocks of single tensors are named by their tensors.
    named = [
        replace(
            kind,
            name=kind.name if kind.group else layout.layers[kind.layers[0]].name,
            role=", ".join(dict.fromkeys(roles[layer] for layer in kind.layers)),
        )
        for kind in found
    ]
    return sorted(named, key=lambda kind: kind.layers[0])


def by_kind(layout: ParameterLayout, found: Sequence[Kind]) -> ParameterLayout:
    """Returns the layout with kinds in the place of blocks, and without groups."""
    return replace(layout, blocks=tuple(Block(kind.name, kind.layers) for kind in found), groups=())


def _roles(layout: ParameterLayout) -> list[str]:
    """Returns the role of every layer; `layout` has blocks of granularity ``block``."""
    layers = layout.layers
    with_matrix = {_module(layer) for layer in layers if len(layer.shape) > 1}
    roles = [
        ("bias" if _module(layer) in with_matrix else "norm")
        if len(layer.shape) < 2
        else ("matrix" if len(layer.shape) == 2 else "kernel")
        for layer in layers
    ]
    widths: set[int] = set()
    grouped = {block for group in layout.groups for block in group.blocks}
    for index in sorted(grouped):
        block = layout.blocks[index]
        matrices = [layer for layer in block.layers if len(layers[layer].shape) == 2]
        width = _width([layers[layer].shape for layer in matrices])
        if width is None:
            continue
        widths.add(width)
        for layer, role in _of_block(block, matrices, layers, width).items():
            roles[layer] = role
    for index in layout.unique:
        for layer in layout.blocks[index].layers:
            shape = layers[layer].shape
            if len(shape) == 2 and shape[0] != shape[1] and not widths.isdisjoint(shape):
                roles[layer] = "embedding or head"
    return roles


def _width(shapes: Sequence[tuple[int, ...]]) -> int | None:
    """Returns the size that all matrices of a block share; None if there is none, or not just one."""
    if len(shapes) < 2:
        return None
    shared = set.intersection(*(set(shape) for shape in shapes))
    return shared.pop() if len(shared) == 1 else None


def _of_block(block: Block, matrices: Sequence[int], layers: Sequence[Layer], width: int) -> dict[int, str]:
    """Returns the roles of a block's matrices, as far as their shapes tell."""
    shapes = {layer: layers[layer].shape for layer in matrices}
    held = Counter(shapes.values())
    wide = max((a for a, b in held if b == width < a and (width, a) in held), default=0)
    if not wide:
        return {}
    mlp = {layer for layer, shape in shapes.items() if sorted(shape) == [width, wide]}
    parts = {_part(layers[layer], block) for layer in mlp}
    mlp |= {layer for layer in matrices if _part(layers[layer], block) in parts}
    rest = [layer for layer in matrices if layer not in mlp]
    attention = rest if len(rest) > 1 else []
    return dict.fromkeys(mlp, "mlp") | dict.fromkeys(attention, "attention")


def _part(layer: Layer, block: Block) -> str:
    """Returns the part of its block that a layer is in: the first name, and the number after it."""
    names = layer.name.removeprefix(f"{block.name}.").split(".")[:2]
    return ".".join(names if len(names) > 1 and names[1].isdecimal() else names[:1])


def _module(layer: Layer) -> str:
    return layer.name.rpartition(".")[0]
