"""Paths as people give them: with ``~`` for the home, and relative to where the command was called."""

from __future__ import annotations

import os
from pathlib import Path

from fedtlu_fast.data.hub.location import read_location

PATH_SOURCES = ("text", "ptb", "udpos", "cifar10", "cifar100", "images", "texts", "arrays")
"""Kinds of `data.source` after whose colon a path stands."""


def at_home(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` or ``~user`` in its beginning as that home; as it is where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def absolute(path: str) -> str:
    """The same file or directory from everywhere; what is not there is left as it is."""
    given = at_home(path)
    try:
        return os.path.abspath(given) if given.exists() else path
    except OSError:  # a name too long, a folder that is closed
        return path


def absolute_source(source: str) -> str:
    """A `data.source` whose path holds from everywhere."""
    kind, colon, path = source.partition(":")
    if kind == "hf" and path:
        place = read_location(path)
        name = absolute(place.name)
        configuration = f":{place.configuration}" if place.configuration else ""
        revision = f"@{place.revision}" if place.revision else ""
        return f"hf:{name}{configuration}{revision}" if os.path.isabs(name) else source
    return f"{kind}:{absolute(path)}" if colon and path and kind in PATH_SOURCES else source
