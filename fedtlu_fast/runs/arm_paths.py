"""Names and directories of the arms of a comparison."""

from __future__ import annotations

import os
from pathlib import Path

from fedtlu_fast.places import portable


def arm_name(selector: str, seed: int) -> str:
    """The name of an arm of a comparison."""
    return f"{selector}-seed{seed}"


def arm_path(out: Path, selector: str, seed: int) -> Path:
    """The directory of an arm in that of its comparison; it has the arm's name, in characters of any system.

    A directory that has the very name of the arm, as earlier versions gave it, is found too.
    """
    name = arm_name(selector, seed)
    return out / name if os.path.lexists(out / name) else out / portable(name)
