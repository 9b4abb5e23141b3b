"""Pairs the layers of two states of a model, and lists everything that has no partner."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from fedtlu_fast.changes.adapters import Product, turned
from fedtlu_fast.changes.buffers import buffers, quantised
from fedtlu_fast.changes.matching import core, matched, natural
from fedtlu_fast.changes.stored import Checkpoint, Stored, pieces
from fedtlu_fast.errors import InputError

Terms = tuple[Stored, ...]
"""A tensor as a sum: a weight, the product of an adapter, or a weight and the product that changes it."""


@dataclass(frozen=True)
class Pair:
    """A layer that both states have.

    Attributes:
        name: its name in BEFORE.
        other: its name in AFTER.
        before: the tensor before the change, as a sum.
        after: the tensor after the change, as a sum.
        weight: whether `before` is the whole weight, and not only an adapter's product.
    """

    name: str
    other: str
    before: Terms
    after: Terms
    weight: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of the layer."""
        return (self.before or self.after)[0].shape


@dataclass(frozen=True)
class Side:
    """One state of a model.

    Attributes:
        checkpoint: the checkpoint that decides on names and order.
        layers: names of the layers.
        buffers: names of the buffers.
        skipped: names of other tensors that are not layers.
        terms: the layers as sums, by name.
        whole: whether the sums are whole weights.
        adapter: whether the layers are only those of an adapter.
    """

    checkpoint: Checkpoint
    layers: list[str]
    buffers: list[str]
    skipped: list[str]
    terms: dict[str, Terms]
    whole: bool = True
    adapter: bool = False

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Side:
        """Sorts the tensors of a checkpoint; those of an adapter include its products."""
        tensors = checkpoint.tensors | (checkpoint.products or {})
        kept = buffers(tensors)
        skipped = {name for name, tensor in tensors.items() if not tensor.floating} | quantised(tensors)
        layers = [name for name in tensors if name not in kept and name not in skipped]
        real = [name for name in tensors if not tensors[name].alias]
        return cls(
            replace(checkpoint, tensors=tensors),
            layers,
            [name for name in real if name in kept],
            [name for name in real if name in skipped - kept],
            {name: (tensors[name],) for name in layers},
            whole=checkpoint.products is None,
            adapter=checkpoint.products is not None,
        )


@dataclass(frozen=True)
class Pairing:
    """Says which layers are compared, and why the other tensors are not.

    Attributes:
        pairs: the layers of both states, in the order of BEFORE.
        tied: names of tensors that are copies of another tensor, as a file says or as their numbers show.
        left_out: sentences about layers that only one state has, or that have another shape in the other.
        skipped: names of tensors that are not floating point, or belong to quantised weights.
        buffers: names of buffers.
    """

    pairs: list[Pair]
    tied: tuple[str, ...]
    left_out: tuple[str, ...]
    skipped: tuple[str, ...]
    buffers: tuple[str, ...]


def paired(old: Side, new: Side, strict: bool) -> Pairing:
    """Pairs the layers that both states have, by name (see `matching`).

    Args:
        old: the state before the change.
        new: the state after the change.
        strict: whether a layer without partner is an error, rather than listed.

    Raises:
        InputError: No layers fit each other, a name fits two tensors, or `strict` is not met.
    """
    names = matched(old.layers, new.layers)
    held, other_held = old.checkpoint.tensors, new.checkpoint.tensors
    twice = [name for name, other in names.items() if held[name].alias and other_held[other].alias]
    names = {name: other for name, other in names.items() if name not in twice}
    # Two adapters: a weight that only one of them changes.
    both = old.adapter and new.adapter
    tied = list(twice)
    left_out: list[str] = []
    lone_pairs: list[Pair] = []
    for side, used, other_side in ((old, list(names), new), (new, list(names.values()), old)):
        if other_side.adapter and not side.adapter:
            continue  # the layers of a base model that an adapter does not change
        tensors, known = side.checkpoint.tensors, {*used, *twice}
        lone = sorted((name for name in side.layers if name not in known), key=natural)
        copies = [name for name in lone if tensors[name].alias or _is_copy(tensors[name], tensors, used)]
        tied += copies
        missing = [name for name in lone if name not in copies]
        if both:
            products = side.checkpoint.products or {}
            alone = [name for name in missing if name in products]
            lone_pairs += [_alone(name, side.terms[name], side is old) for name in alone]
            missing = [name for name in missing if name not in products]
        if missing:
            if strict:
                _refuse(missing, other_side)
            where = other_side.checkpoint.field
            left_out += [f"{name}: not in {where}{_apart(name, other_side)}" for name in missing]
    pairs = []
    for name, other in names.items():
        pair = _fitting(Pair(name, other, old.terms[name], new.terms[other], old.whole))
        ours, theirs = pair.before[0].shape, pair.after[0].shape
        if ours == theirs:
            pairs.append(pair)
        elif strict:
            raise InputError(f"AFTER: {other}", theirs, f"shape {ours}, as {name} in BEFORE")
        else:
            left_out.append(f"{name}: shape {ours} in BEFORE, {theirs} in AFTER")
    if lone_pairs:
        pairs = sorted([*pairs, *lone_pairs], key=lambda pair: natural(pair.name))
    elif old.checkpoint.ordered:
        places = {name: place for place, name in enumerate(old.terms)}
        pairs.sort(key=lambda pair: places[pair.name])
    if not pairs:
        _nothing(old, new, left_out)
    return Pairing(
        pairs,
        tuple(tied),
        tuple(left_out),
        _either(old.skipped, new.skipped),
        _either(old.buffers, new.buffers),
    )


def on_base(
    adapter: Checkpoint, base: Side, strict: bool, *, only_changed: bool
) -> tuple[Side, tuple[str, ...]]:
    """Puts an adapter on its base model.

    Args:
        adapter: the adapter.
        base: the base model.
        only_changed: whether the result has only the layers that the adapter changes.
        strict: whether a product that fits no weight is an error, rather than listed.

    Returns:
        The model with the adapter, and sentences about products that fit no weight.

    Raises:
        InputError: No product fits a weight of the base model, or `strict` is not met.
    """
    names = matched(base.layers, (adapter.products or {}) | adapter.tensors)
    terms = dict(base.terms)
    left_out = []
    own, unfit = Side.of(adapter), []
    for name, other in names.items():
        pair = _fitting(Pair(name, other, base.terms[name], own.terms[other]))
        ours, theirs = pair.before[0].shape, pair.after[0].shape
        if ours != theirs:
            if strict:
                raise InputError(f"{adapter.field}: {other}", theirs, f"shape {ours}, as in the base model")
            unfit.append(name)
            left_out.append(f"{other}: shape {theirs} in {adapter.field}, {ours} in its base model")
        else:
            product = other in (adapter.products or {})
            terms[name] = (*pair.before, *pair.after) if product else pair.after
    used = set(names.values())
    missing = [name for name in own.layers if name not in used]
    if len(missing) + len(unfit) == len(own.layers):
        why = f"; {left_out[0]}" if left_out else ""
        raise InputError(adapter.field, adapter.source, f"an adapter of {base.checkpoint.source}{why}")
    if missing and strict:
        _refuse(missing, base)
    left_out += [f"{name}: in {adapter.field}, but not in its base model" for name in missing]
    checkpoint = replace(adapter, tensors=base.checkpoint.tensors, ordered=base.checkpoint.ordered)
    side = replace(base, checkpoint=checkpoint, terms=terms)
    if only_changed:
        side = replace(
            side, layers=[name for name in base.layers if name in names and name not in unfit], adapter=True
        )
    return side, tuple(left_out)


def _fitting(pair: Pair) -> Pair:
    """Turns a product whose weight is stored the other way round, as ``Conv1D`` of Transformers stores it."""
    ours, theirs = pair.before[0], pair.after[0]
    if ours.shape == theirs.shape or ours.shape != theirs.shape[::-1] or len(ours.shape) != 2:
        return pair
    if _is_product(theirs):
        return replace(pair, after=(turned(theirs),))
    return replace(pair, before=(turned(ours),)) if _is_product(ours) else pair


def _is_product(tensor: Stored) -> bool:
    return isinstance(tensor.source, Product)


def _alone(name: str, terms: Terms, old: bool) -> Pair:
    return Pair(name, name, terms if old else (), () if old else terms, weight=False)


def _is_copy(tensor: Stored, tensors: dict[str, Stored], names: list[str]) -> bool:
    """Tells whether a tensor is one of the named tensors, or has the same numbers as one of them.

    A tensor whose numbers are all equal, such as a bias of zeros, is never taken for a copy.
    """
    like = [tensors[name] for name in names if tensors[name].shape == tensor.shape]
    if any((held.source, held.name) == (tensor.source, tensor.name) for held in like):
        return True
    like = [held for held in like if held.dtype == tensor.dtype and not _is_product(held)]
    if not like or not tensor.count or _is_product(tensor):
        return False
    first = tensor.values(0, 1)
    constant = all(bool((tensor.values(*piece) == first).all()) for piece in pieces(tensor.count))
    return not constant and any(_equal(held, tensor) for held in like)


def _equal(one: Stored, two: Stored) -> bool:
    return all(torch.equal(one.values(*piece), two.values(*piece)) for piece in pieces(one.count))


def _apart(name: str, side: Side) -> str:
    """Says in which other form a checkpoint holds a tensor, if it does."""
    held = next((other for other in side.skipped if core(other) == core(name)), None)
    return f", which holds {held} as {side.checkpoint.tensors[held].dtype}" if held is not None else ""


def _refuse(missing: list[str], other: Side) -> None:
    """Raises an error about tensors that the other checkpoint lacks, or holds in a form without scores."""
    side, name = other.checkpoint, missing[0]
    apart = next((held for held in other.skipped if core(held) == core(name)), None)
    if apart is not None:
        raise InputError(
            f"{side.field}: {apart}",
            side.tensors[apart].dtype,
            "floating-point numbers without separate scales, as in the other checkpoint",
            "Save it in F32, F16 or BF16.",
        )
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    raise InputError(side.field, f"no tensor {name}{more}", "the tensors of the other checkpoint")


def _nothing(old: Side, new: Side, left_out: list[str]) -> None:
    """Raises the error about two checkpoints that have no layer in common."""
    for side, other in ((old, new), (new, old)):
        if not side.layers:
            expected = "a model with floating-point tensors that are layers"
            raise InputError(side.checkpoint.field, side.checkpoint.source, expected)
        for name in side.layers:
            if _apart(name, other):
                _refuse([name], other)
    reason = f"; {left_out[0]}" if left_out else ""
    expected = f"a state of the same model as BEFORE ({old.checkpoint.source}){reason}"
    raise InputError("AFTER", new.checkpoint.source, expected)


def _either(before: list[str], after: list[str]) -> tuple[str, ...]:
    """Joins the names of both sides in natural order; names that differ only by a prefix appear once."""
    known = {core(name) for name in before}
    return tuple(sorted([*before, *(name for name in after if core(name) not in known)], key=natural))
