"""Resolves paths that users give: with ``~`` for the home directory, or relative to the current directory."""

from __future__ import annotations

import os
from pathlib import Path

from fedtlu_fast.data.hub.location import read_location

PATH_SOURCES = ("text", "ptb", "udpos", "cifar10", "cifar100", "images", "texts", "arrays")
"""Kinds of `data.source` that have a path after the colon."""


def at_home(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` or ``~user`` at its start replaced by that home directory, if it exists."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def absolute(path: str) -> str:
    """The absolute path of an existing file or directory; any other text is returned unchanged."""
    given = at_home(path)
    try:
        return os.path.abspath(given) if given.exists() else path
    except OSError:  # the name is too long, or a folder is not readable
        return path


def absolute_source(source: str) -> str:
    """The `data.source` with an absolute path, so that it is valid in every directory."""
    kind, colon, path = source.partition(":")
    if kind == "hf" and path:
        place = read_location(path)
        name = absolute(place.name)
        configuration = f":{place.configuration}" if place.configuration else ""
        revision = f"@{place.revision}" if place.revision else ""
        return f"hf:{name}{configuration}{revision}" if os.path.isabs(name) else source
    return f"{kind}:{absolute(path)}" if colon and path and kind in PATH_SOURCES else source
