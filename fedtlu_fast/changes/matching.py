"""Pairs the tensors of two checkpoints, even if libraries have added prefixes to their names.

Compilers and wrappers add parts to a name (``_orig_mod``, ``module``), and a model with a head calls its
body ``transformer`` or ``model``. Nothing is guessed: a name that fits two tensors is an error.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable

from fedtlu_fast.errors import InputError

# Names that torch.compile, FSDP, activation checkpointing and Fabric give to modules, and no one else does.
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
# WRAPPED is the name that data parallelism adds at any depth; BODIES are names of a model's body.
WRAPPED, BODIES = "module", frozenset({"model", "transformer", "base_model"})


def matched(old: Iterable[str], new: Iterable[str]) -> dict[str, str]:
    """Maps names in BEFORE to names in AFTER, for all tensors that are in both, in natural order.

    Names are paired by the first of these rules that fits: (1) they are equal; (2) they are equal without the
    parts of `WRAPPERS`; (3) one prefix turns all names of one side into the names of the other; (4) they are
    equal without `WRAPPED` and leading `BODIES`; (5) one prefix turns the unpaired names of one side into
    unpaired names of the other; (6) if no name is paired yet, the prefix that does so for most names of one
    side, and for at least half of them.

    Raises:
        InputError: A tensor of one side fits two tensors of the other.
    """
    ours, theirs = set(old), set(new)
    if ours == theirs:
        return {name: name for name in sorted(ours, key=natural)}
    before, after = _bare("BEFORE", sorted(ours)), _bare("AFTER", sorted(theirs))
    pairs = _by_prefix(list(before), list(after), whole=True) or _by_key(before, after)
    rest = [name for name in before if name not in pairs]
    used = set(pairs.values())
    pairs |= _by_prefix(rest, [name for name in after if name not in used], whole=False)
    pairs = pairs or _by_common_prefix(list(before), list(after))
    named = {before[name]: after[other] for name, other in pairs.items()}
    return {name: named[name] for name in sorted(named, key=natural)}


def core(name: str) -> str:
    """Returns a name without the parts that libraries add; two names of one tensor have the same core."""
    return _key(_without(name, WRAPPERS.__contains__))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Returns a sorting key that puts ``h.2`` before ``h.10``."""
    parts = re.split(r"([0-9]+)", name)
    digits = {index: part.lstrip("0") for index, part in enumerate(parts) if index % 2}
    return [
        (0, len(digits[index]), digits[index]) if index in digits else (1, 0, part)
        for index, part in enumerate(parts)
    ]


def _bare(field: str, names: Iterable[str]) -> dict[str, str]:
    """Maps names without wrappers to names."""
    found: dict[str, str] = {}
    for name in names:
        bare = _without(name, WRAPPERS.__contains__)
        if bare in found:
            raise _ambiguous(field, [found[bare], name])
        found[bare] = name
    return found


def _by_key(before: Iterable[str], after: Iterable[str]) -> dict[str, str]:
    """Pairs names that are equal, or equal without the parts that data parallelism and bodies add."""
    groups: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((before, after)):
        for name in names:
            groups[_key(name)][side].append(name)
    pairs: dict[str, str] = {}
    for ours, theirs in groups.values():
        common = [name for name in ours if name in theirs]
        pairs |= {name: name for name in common}
        lone, other = ([name for name in side if name not in common] for side in (ours, theirs))
        if not lone or not other:
            continue
        if len(ours) > 1 or len(theirs) > 1:
            raise _ambiguous(*(("AFTER", theirs) if len(theirs) > 1 else ("BEFORE", ours)))
        pairs[lone[0]] = other[0]
    return pairs


def _by_prefix(before: list[str], after: list[str], *, whole: bool) -> dict[str, str]:
    """Pairs names by one prefix on one side; with `whole`, only if it pairs all names of both sides."""
    if not before or not after or (whole and len(before) != len(after)):
        return {}
    if len(before) > len(after) or (
        len(before) == len(after) and min(map(len, before)) > min(map(len, after))
    ):
        return {name: other for other, name in _by_prefix(after, before, whole=whole).items()}
    held, first = set(after), before[0]
    prefixes = [name.removesuffix(first) for name in after if name.endswith(f".{first}")]
    fitting = [prefix for prefix in prefixes if all(f"{prefix}{name}" in held for name in before)]
    if len(fitting) > 1:
        raise _ambiguous("AFTER or BEFORE", [f"{prefix}{first}" for prefix in fitting])
    return {name: f"{fitting[0]}{name}" for name in before} if fitting else {}


def _by_common_prefix(before: list[str], after: list[str]) -> dict[str, str]:
    """Pairs names by the prefix on one side that pairs most of them, if it pairs half of the shorter side."""
    best: list[dict[str, str]] = [{}]
    for short, long, ours in ((before, after, True), (after, before, False)):
        held = set(short)
        found: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for name in long:
            parts = name.split(".")
            for cut in range(1, len(parts)):
                rest = ".".join(parts[cut:])
                if rest in held:
                    found[".".join(parts[:cut])][rest] = name
        for pairs in found.values():
            if len(pairs) >= len(best[0]):
                way = pairs if ours else {name: other for other, name in pairs.items()}
                best = [*(best if len(pairs) == len(best[0]) else []), way]
    if 2 * len(best[0]) < min(len(before), len(after)) or not best[0]:
        return {}
    if len(best) > 1:
        name = next(iter(best[0]))
        raise _ambiguous("AFTER", [best[0][name], best[1].get(name, "another prefix")])
    return best[0]


def _key(name: str) -> str:
    parts = _without(name, WRAPPED.__eq__).split(".")
    while len(parts) > 1 and parts[0] in BODIES:
        del parts[0]
    return ".".join(parts)


def _without(name: str, drop: Callable[[str], bool]) -> str:
    """Removes the modules for which `drop` is true from a name; the last part, the tensor, stays."""
    *modules, last = name.split(".")
    return ".".join([*(part for part in modules if not drop(part)), last])


def _ambiguous(field: str, names: list[str]) -> InputError:
    return InputError(
        field,
        f"{names[0]} and {names[1]}",
        "names that differ by more than a prefix, because both fit the same tensor of the other checkpoint",
        "Save both checkpoints from the same kind of model.",
    )
