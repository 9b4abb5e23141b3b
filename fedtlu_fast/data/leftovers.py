"""Files and folders that programs leave beside data, and that are no data."""

from __future__ import annotations

from pathlib import PurePath

FOLDERS = {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
ENDINGS = ("~", ".bak", ".orig", ".swp", ".tmp")


def is_leftover(path: PurePath | str) -> bool:
    """Whether a path, relative to the data's folder, is hidden, a system's own, or an editor's backup copy.

    Args:
        path: its every part counts, so that all files of a leftover folder are leftovers.
    """
    return any(
        name.startswith(".")
        or name in FOLDERS
        or name.lower().endswith(ENDINGS)
        or (name.startswith("#") and name.endswith("#"))
        for name in PurePath(path).parts
    )
