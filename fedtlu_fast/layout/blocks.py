"""Finds the blocks of a model, and the groups of like blocks, from the names and shapes of parameters only.

The rule (FedTLU, section III, made exact; the details are ours). A module's *signature* is the sequence
of the shapes of its parameters. A *stack* is a list (children whose names are numbers: ``h.0``, ``h.1``)
in which two modules that hold modules of their own share a signature.

1. From the top down, the candidates are: the children of a list; and, outside of lists, sibling modules
   that hold modules of their own and share a signature (torchvision's ``encoder_layer_0`` and
   ``encoder_layer_1``), unless they hold a stack, as the towers of a dual encoder do, or are lists of like
   modules themselves. Candidates that share a signature are like blocks, wherever they lie.
2. A child of a list that has every tensor of its like siblings, by name and shape, and some more (the
   first block of a T5 holds the position bias for all) is their like with the tensors that they share.
   Its other tensors are a unique block. Any other candidate without like is opened, and rule 1 is applied to
   its contents.
3. Of the remaining parameters, each module's own ones are one block, or, if they repeat (the layers of one
   ``nn.LSTM``), one block for each repetition, all alike.
4. Of the blocks of rule 3 that do not repeat, two are alike when they share a signature and lie inside a
   list (the unequal stages of a ResNet). Outside of lists no blocks are alike: embeddings, head and final
   norm are unique, even if a head has the embedding's shape. Only in a model in which rules 1 to 3 found no
   repetition at all (a plain MLP or CNN) are layers of equal shape alike wherever they lie.

Nothing depends on what a library calls its modules, so new versions and other libraries work as well.
`benchmarks/blocks.py` prints what the rule finds in published architectures.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from fedtlu_fast.layout.named_blocks import Patterns, named
from fedtlu_fast.layout.repetition import Shape, repetition

Granularity = Literal["tensor", "module", "block"]
ROOT = "(root)"
"""The name of the block of the top module's own parameters."""


@dataclass(frozen=True)
class Found:
    """A block that was found.

    Attributes:
        name: its dotted name.
        layers: indices of its layers, in order.
        kind: a key that it shares with like blocks only.
        by_shape: whether the key is its shape only (rule 4).
    """

    name: str
    layers: tuple[int, ...]
    kind: Hashable
    by_shape: bool = False


@dataclass
class _Node:
    """A module, as the names of its parameters describe it.

    Attributes:
        path: its dotted name; empty for the model.
        own: indices of the layers that it owns itself.
        children: the modules in it, by name.
        layers: indices of all its layers, in order.
        signature: shapes of all its layers, in order.
        holds_stack: whether it contains a stack.
    """

    path: str
    own: list[int] = field(default_factory=list)
    children: dict[str, _Node] = field(default_factory=dict)
    layers: tuple[int, ...] = ()
    signature: tuple[Shape, ...] = ()
    holds_stack: bool = False

    def is_list(self) -> bool:
        return bool(self.children) and all(is_number(key) for key in self.children)

    def is_stack_like(self) -> bool:
        """Tells whether its children are candidates for blocks, and not the module itself."""
        return self.holds_stack or (self.is_list() and len(_by_signature(self.children.values())) == 1)

    def walk(self) -> Iterator[_Node]:
        yield self
        for child in self.children.values():
            yield from child.walk()


def is_number(part: str) -> bool:
    """Tells whether a part of a name is an index of a list; ``str.isdigit`` also accepts superscripts."""
    return part.isascii() and part.isdigit()


def discover(
    names: Sequence[str], shapes: Sequence[Shape], granularity: Granularity, patterns: Patterns = ()
) -> list[Found]:
    """Finds the blocks of a model, in the order of their first layer; every layer is in exactly one of them.

    Args:
        names: dotted names of the parameters, as `named_parameters` returns them.
        shapes: the parameters' shapes.
        granularity: ``block``: the rules at the top of this module. ``module``: a block holds the parameters
            that one module owns; blocks are alike if they have the same place in like blocks, or the same
            size outside of them. ``tensor``: the same with single parameters.
        patterns: patterns of modules that are blocks, whatever the rules say; see `named_blocks`. The rules
            find the blocks of the other parameters.

    Raises:
        InputError: a pattern matches nothing, or two patterns match the same layer.
    """
    given = [
        Found(path, layers, ("named", pattern))
        for pattern, modules in named(names, patterns).items()
        for path, layers in modules.items()
    ]
    taken = _layers_of(given)
    rest = [layer for layer in range(len(names)) if layer not in taken]
    found = [
        replace(block, layers=tuple(rest[layer] for layer in block.layers))
        for block in _discover([names[k] for k in rest], [shapes[k] for k in rest], granularity, not given)
    ]
    if granularity != "block":
        given = _parts(given, names, shapes, _module_of if granularity == "module" else str)
    return sorted([*given, *found], key=lambda block: block.layers[0])


def _discover(
    names: Sequence[str], shapes: Sequence[Shape], granularity: Granularity, alone: bool
) -> list[Found]:
    """Finds blocks by the rules at the top of this module.

    Args:
        names: see `discover`.
        shapes: see `discover`.
        granularity: see `discover`.
        alone: whether these layers are the whole model, so that rule 4 may compare layers by their shape.
    """
    root = _tree(names, shapes)
    blocks, beyond = _repeated_blocks(root, names, shapes)
    own = _own_blocks(root, shapes, _layers_of(blocks))
    repeated = [found for found in own if found.kind is not None]
    singles = [found for found in own if found.kind is None]

    # A block of rule 3 lies in one module already.
    if granularity == "module":
        blocks = _parts(blocks, names, shapes, _module_of)
    elif granularity == "tensor":
        cut = [_parts(found, names, shapes, str) for found in (blocks, repeated, singles)]
        blocks, repeated, singles = cut
    blocks += repeated
    nothing_repeats, taken = alone and not blocks, {found.name for found in blocks}

    def likeness(single: Found) -> Hashable:
        comparable = nothing_repeats or any(is_number(part) for part in single.name.split("."))
        apart = not beyond.isdisjoint(single.layers)
        return single.name if apart or not comparable else tuple(shapes[layer] for layer in single.layers)

    for single in singles:
        # A layer that only the first block of a stack has may be a parameter of that block's module itself.
        name = names[single.layers[0]] if single.name in taken else single.name
        blocks.append(Found(name, single.layers, likeness(single), by_shape=True))
    return sorted(blocks, key=lambda found: found.layers[0])


def _tree(names: Sequence[str], shapes: Sequence[Shape]) -> _Node:
    root = _Node("")
    for index, name in enumerate(names):
        node = root
        for part in name.split(".")[:-1]:
            path = f"{node.path}.{part}" if node.path else part
            node = node.children.setdefault(part, _Node(path))
        node.own.append(index)
    for node in reversed(list(root.walk())):  # children before the modules that hold them
        inside = (layer for child in node.children.values() for layer in child.layers)
        node.layers = tuple(sorted([*node.own, *inside]))
        node.signature = tuple(shapes[layer] for layer in node.layers)
        node.holds_stack = any(child.holds_stack for child in node.children.values()) or (
            node.is_list() and any(len(like) > 1 for like in _by_signature(_containers(node)))
        )
    return root


def _containers(node: _Node) -> list[_Node]:
    return [child for child in node.children.values() if child.children]


def _by_signature(nodes: Iterable[_Node]) -> list[list[_Node]]:
    """Groups nodes of equal signature, in the order of the groups' first members."""
    alike: defaultdict[tuple[Shape, ...], list[_Node]] = defaultdict(list)
    for node in nodes:
        alike[node.signature].append(node)
    return list(alike.values())


def _repeated_blocks(
    root: _Node, names: Sequence[str], shapes: Sequence[Shape]
) -> tuple[list[Found], set[int]]:
    """Applies rules 1 and 2; returns the blocks, and the layers that some have beyond their like."""
    found: list[Found] = []
    beyond: set[int] = set()
    frontier = [root]
    while frontier:
        families = [family for node in frontier for family in _families(node)]
        alike = _by_signature(node for family in families for node in family)
        repeated = {id(node) for like in alike for node in like if len(like) > 1}
        frontier = []
        for family in families:
            like = [node for node in family if id(node) in repeated]
            found += [Found(node.path, node.layers, ("block", node.signature)) for node in like]
            for node in family:
                if id(node) not in repeated:
                    shared = _shared_with(node, like, names, shapes)
                    if shared:
                        found.append(Found(node.path, shared, ("block", tuple(shapes[k] for k in shared))))
                        beyond.update(set(node.layers).difference(shared))
                    else:
                        frontier.append(node)
    return found, beyond


def _families(node: _Node) -> Iterator[list[_Node]]:
    """Yields the candidates of rule 1 in `node`: each outermost list, and like siblings outside of lists."""
    if node.is_list():
        yield list(node.children.values())
        return
    containers = _containers(node)
    siblings: set[str] = set()
    for like in _by_signature(child for child in containers if not child.is_stack_like()):
        if len(like) > 1:
            siblings.update(child.path for child in like)
            yield like
    for child in containers:
        if child.path not in siblings:
            yield from _families(child)


def _shared_with(
    node: _Node, siblings: Sequence[_Node], names: Sequence[str], shapes: Sequence[Shape]
) -> tuple[int, ...]:
    """Applies rule 2; returns the layers that `node` shares with its largest like sibling, or none."""

    def tensors(of: _Node) -> dict[tuple[str, Shape], int]:
        return {(names[layer][len(of.path) :], shapes[layer]): layer for layer in of.layers}

    own, best = tensors(node), tuple[int, ...]()
    for like in _by_signature(siblings):
        theirs = tensors(like[0])
        if len(best) < len(theirs) and theirs.keys() <= own.keys():
            best = tuple(sorted(own[tensor] for tensor in theirs))
    return best


def _own_blocks(root: _Node, shapes: Sequence[Shape], taken: set[int]) -> list[Found]:
    """Applies rule 3 to the layers that are not taken; the key is None if nothing repeats."""
    found = []
    for node in root.walk():
        path = node.path or ROOT
        stretches = repetition([layer for layer in node.own if layer not in taken], shapes)
        kinds = [tuple(shapes[layer] for layer in stretch) for stretch in stretches]
        occurrences = Counter(kinds)
        for index, (stretch, kind) in enumerate(zip(stretches, kinds, strict=True)):
            name = path if len(stretches) == 1 else f"{path}[{index}]"
            found.append(Found(name, tuple(stretch), ("block", kind) if occurrences[kind] > 1 else None))
    return found


def _parts(
    blocks: Iterable[Found], names: Sequence[str], shapes: Sequence[Shape], owner: Callable[[str], str]
) -> list[Found]:
    """Cuts blocks by owner (module or tensor); parts of like blocks are alike by place and shapes."""
    found = []
    for block in blocks:
        owned: dict[str, list[int]] = {}
        for layer in block.layers:
            owned.setdefault(owner(names[layer]), []).append(layer)
        for place, (name, layers) in enumerate(owned.items()):
            signature = tuple(shapes[layer] for layer in layers)
            kind = None if block.kind is None else (block.kind, place, signature)
            found.append(Found(name, tuple(layers), kind))
    return found


def _module_of(name: str) -> str:
    return name.rpartition(".")[0] or ROOT


def _layers_of(blocks: Iterable[Found]) -> set[int]:
    return {layer for block in blocks for layer in block.layers}
