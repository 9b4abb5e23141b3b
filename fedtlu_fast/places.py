"""Resolves paths that users give: they may begin with ``~`` or be relative. Makes names of directories."""

from __future__ import annotations

import os
import re
from pathlib import Path

_UNUSUAL = re.compile(r'[<>:"/\\|?*\s]')
"""Characters that Windows, scp or rsync do not take in a file's name, or take for something else."""


def portable(name: str) -> str:
    """Returns a name for a directory on any system: ``my_parts:Mine-seed0`` is ``my_parts.Mine-seed0``."""
    return _UNUSUAL.sub(".", name)


def at_home(path: str | os.PathLike[str]) -> Path:
    """Replaces ``~`` or ``~user`` at the start of a path by that home directory, if it exists."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def absolute(path: str) -> str:
    """Returns the absolute path of an existing file or directory; any other text is returned unchanged."""
    given = at_home(path)
    try:
        return os.path.abspath(given) if given.exists() else path
    except OSError:  # the name is too long, or a folder is not readable
        return path
