"""Finds the blocks that the user names by patterns, for models whose blocks `blocks` does not find."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from fedtlu_fast.errors import InputError, nearest

Patterns = Sequence[str]
"""Dotted names of modules or parameters; ``*`` and ``?`` match within one part of a name: ``down.*.res``."""


def named(names: Sequence[str], patterns: Patterns) -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns for each pattern the modules that match it, with the indices of their layers.

    Args:
        names: dotted names of the parameters.
        patterns: see `Patterns`. A module that matches is one block with all modules in it. The modules that
            match one pattern are like blocks, whatever their shapes.

    Raises:
        InputError: a pattern matches nothing, or two patterns match the same layer.
    """
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    taken: dict[int, str] = {}
    for pattern in patterns:
        parts = pattern.split(".")
        own: dict[str, list[int]] = {}
        for layer, name in enumerate(names):
            path = name.split(".")[: len(parts)]
            if len(path) == len(parts) and all(map(fnmatchcase, path, parts)):
                if layer in taken:
                    expected = f"patterns that match no layer twice: {taken[layer]} matches {name} too"
                    raise InputError("blocks", pattern, expected)
                taken[layer] = pattern
                own.setdefault(".".join(path), []).append(layer)
        if not own:
            known = _paths(names)
            expected = "a pattern that matches modules or parameters by their dotted names, such as "
            raise InputError("blocks", pattern, expected + known[0], near=nearest(pattern, known))
        found[pattern] = {path: tuple(layers) for path, layers in own.items()}
    return found


def _paths(names: Sequence[str]) -> list[str]:
    """Returns the dotted names of all modules and parameters."""
    parts = [name.split(".") for name in names]
    return list(dict.fromkeys(".".join(path[:depth]) for path in parts for depth in range(1, len(path) + 1)))
