"""Finds the blocks of a model, and which of them are alike, from parameter names and shapes alone.

The rule (FedTLU, section III, made exact; the details are ours). A module's *signature* is the sequence
of the shapes of its parameters.

1. The children of list-like containers (names that are numbers: ``h.0``, ``h.1``) are candidates, the
   outermost first. Candidates that share a signature are like blocks; one that has no like is opened,
   and its own lists are searched in the same way.
2. In what is left, sibling modules that hold modules of their own and share a signature are like blocks.
3. In what is left, each module's own parameters are one block, or, when they repeat (the layers of one
   ``nn.LSTM``), one block per repetition, all alike.
4. Of those of rule 3 that do not repeat, two are alike when they share a signature and lie inside a list
   (the unequal stages of a ResNet). Outside of lists nothing is alike: embeddings, head and final norm
   have no like, even when a head has the embedding's shape. Only in a model in which rules 1 to 3 found
   no repetition at all (a plain MLP or CNN) are layers of equal shape alike wherever they lie.

Nothing depends on what a library calls its modules, so new versions and other libraries work as well.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Granularity = Literal["tensor", "module", "block"]
Shape = tuple[int, ...]
ROOT = "(root)"
"""How the top module's own parameters are called."""


@dataclass(frozen=True)
class Found:
    """One unit of choice: its name, its layers (indices, in order), and the key it shares with its like."""

    name: str
    layers: tuple[int, ...]
    kind: Hashable


@dataclass
class _Node:
    """A module as its parameter names show it."""

    path: str
    own: list[int] = field(default_factory=list)
    children: dict[str, _Node] = field(default_factory=dict)

    def layers(self) -> list[int]:
        return sorted([*self.own, *(layer for child in self.children.values() for layer in child.layers())])

    def is_list(self) -> bool:
        return bool(self.children) and all(key.isdigit() for key in self.children)

    def walk(self) -> Iterator[_Node]:
        yield self
        for child in self.children.values():
            yield from child.walk()


def discover(names: Sequence[str], shapes: Sequence[Shape], granularity: Granularity) -> list[Found]:
    """Units of choice of a model, in the order of their first layer; together they hold every layer once.

    Args:
        names: dotted parameter names, as `named_parameters` gives them.
        shapes: their shapes.
        granularity: ``block`` (see the module's text); ``module``: the parameters one module owns, alike
            when they have the same place in like blocks, or the same size outside of them; ``tensor``:
            likewise, each parameter for itself.
    """
    root = _tree(names)
    blocks = _list_blocks(root, shapes)
    blocks += _sibling_blocks(root, shapes, _layers_of(blocks))
    inside = _layers_of(blocks)
    own = [found for found in _own_blocks(root, shapes) if inside.isdisjoint(found.layers)]
    repeated = [found for found in own if found.kind is not None]
    singles = [found for found in own if found.kind is None]

    # What rule 3 finds lies in one module already.
    if granularity == "module":
        blocks = _parts(blocks, names, shapes, _module_of)
    elif granularity == "tensor":
        cut = [_parts(found, names, shapes, str) for found in (blocks, repeated, singles)]
        blocks, repeated, singles = cut
    blocks += repeated

    def likeness(single: Found) -> Hashable:
        comparable = not blocks or any(part.isdigit() for part in single.name.split("."))
        return tuple(shapes[layer] for layer in single.layers) if comparable else single.name

    singles = [Found(found.name, found.layers, likeness(found)) for found in singles]
    return sorted([*blocks, *singles], key=lambda found: found.layers[0])


def _tree(names: Sequence[str]) -> _Node:
    root = _Node("")
    for index, name in enumerate(names):
        node = root
        for part in name.split(".")[:-1]:
            path = f"{node.path}.{part}" if node.path else part
            node = node.children.setdefault(part, _Node(path))
        node.own.append(index)
    return root


def _list_blocks(root: _Node, shapes: Sequence[Shape]) -> list[Found]:
    """Rule 1."""
    found: list[Found] = []
    frontier = [root]
    while frontier:
        candidates = [child for node in frontier for child in _outermost_list_children(node)]
        repeated, frontier = _repeated(candidates, shapes)
        found += repeated
    return found


def _outermost_list_children(node: _Node) -> Iterator[_Node]:
    if node.is_list():
        yield from node.children.values()
        return
    for child in node.children.values():
        yield from _outermost_list_children(child)


def _sibling_blocks(node: _Node, shapes: Sequence[Shape], taken: set[int]) -> list[Found]:
    """Rule 2; siblings that hold blocks of rule 1 (the towers of a dual encoder) are not blocks."""
    containers = [child for child in node.children.values() if child.children]
    fresh = [child for child in containers if taken.isdisjoint(child.layers())]
    opened = [child for child in containers if not taken.isdisjoint(child.layers())]
    found, unlike = _repeated(fresh, shapes)
    for child in [*unlike, *opened]:
        found += _sibling_blocks(child, shapes, taken)
    return found


def _repeated(nodes: list[_Node], shapes: Sequence[Shape]) -> tuple[list[Found], list[_Node]]:
    """Those of the nodes that share a signature, as blocks, and the others."""
    alike: defaultdict[tuple[Shape, ...], list[_Node]] = defaultdict(list)
    for node in nodes:
        alike[tuple(shapes[layer] for layer in node.layers())].append(node)
    found = [
        Found(node.path, tuple(node.layers()), ("block", signature))
        for signature, group in alike.items()
        for node in group
        if len(group) > 1
    ]
    return found, [group[0] for group in alike.values() if len(group) == 1]


def _own_blocks(root: _Node, shapes: Sequence[Shape]) -> list[Found]:
    """Rule 3: kind is None where nothing repeats."""
    found = []
    for node in root.walk():
        path = node.path or ROOT
        stretches = _repetition(node.own, shapes)
        kinds = [tuple(shapes[layer] for layer in stretch) for stretch in stretches]
        occurrences = Counter(kinds)
        for index, (stretch, kind) in enumerate(zip(stretches, kinds, strict=True)):
            name = path if len(stretches) == 1 else f"{path}[{index}]"
            found.append(Found(name, tuple(stretch), ("block", kind) if occurrences[kind] > 1 else None))
    return found


def _repetition(layers: list[int], shapes: Sequence[Shape]) -> list[list[int]]:
    """Cuts a module's own layers into the stretches that repeat at their end, and what comes before.

    The period that explains the most is taken, then the shortest, of two tensors at least:
    ``A B c c  B B c c  B B c c`` is cut into three stretches of four, two of them alike.
    """
    count, best_period, best_cover = len(layers), 1, 0
    matches = _prefix_matches([shapes[layer] for layer in reversed(layers)])
    for period in range(2, count // 2 + 1):
        cover = period + matches[period]
        cover -= cover % period
        if cover >= 2 * period and cover > best_cover:
            best_period, best_cover = period, cover
    head = count - best_cover
    starts = range(head, count, best_period)
    stretches = [layers[:head], *(layers[start : start + best_period] for start in starts)]
    return [stretch for stretch in stretches if stretch]


def _prefix_matches(sequence: Sequence[Shape]) -> list[int]:
    """For every place, how many items from there on equal those from the start on, in linear time.

    The Z algorithm: inside the stretch ``[left, right)`` that matched last, what is known of the start
    holds again. (Gusfield 1997, Algorithms on Strings, Trees and Sequences, 1.4.)
    """
    matches = [0] * len(sequence)
    left = right = 0
    for place in range(1, len(sequence)):
        length = min(right - place, matches[place - left]) if place < right else 0
        while place + length < len(sequence) and sequence[length] == sequence[place + length]:
            length += 1
        matches[place] = length
        if place + length > right:
            left, right = place, place + length
    return matches


def _parts(
    blocks: Iterable[Found], names: Sequence[str], shapes: Sequence[Shape], owner: Callable[[str], str]
) -> list[Found]:
    """Blocks cut by owner (module or tensor); parts of like blocks are alike by place and shapes."""
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
