"""Finds the directory of an earlier run: by its path, its name, the beginning of its name, or as latest."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from fedtlu_fast.errors import InputError, listed, nearest
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.directory import BEGINNING, COMPARISON, CONFIG, PLAN

FOLDERS = ("runs", "experiments")
"""The folders in which commands make directories, and in which runs are looked up."""
LATEST = "latest"
"""Stands for the run that was begun last."""
Kind = Literal["run", "comparison", "experiment"]
_STAMP = re.compile(r"(\d{8}-\d{6})-(.*)", re.DOTALL)
"""The time at which commands made a directory, in front of its name."""


def find_run(
    text: str | os.PathLike[str],
    field: str,
    kinds: Collection[str] = (),
    folders: Sequence[str] = FOLDERS,
) -> Path:
    """Returns the directory of the run that a user means.

    Args:
        text: a path; or the name of a directory in `folders`, with or without the time in front; or the
            beginning of such a name; or ``latest``. A path that exists comes first.
        field: the option or argument, for the error.
        kinds: which directories ``latest`` may stand for; empty: all kinds, and directories of runs that have
            not written anything yet.
        folders: where names are looked up, relative to the working directory.

    Raises:
        InputError: No run has this name, or several have.
    """
    given = str(text)
    path = at_home(given)
    if given and (os.path.lexists(path) or os.sep in given or given in (".", "..") or given[0] == "~"):
        return path
    known = run_directories(folders)
    if given == LATEST:
        found = [one for one in known if not kinds or kind_of(one) in kinds]
        if not found:
            what = f"{' or '.join(kinds) or 'run'} in {' or '.join(f'{name}/' for name in folders)}"
            raise InputError(field, given, f"an earlier {what}, and there is none", "Name its directory.")
        return found[0]
    for matches in (
        [one for one in known if one.name == given],
        [one for one in known if name_of(one) == given],
        [one for one in known if given and one.name.startswith(given)],
        [one for one in known if given and name_of(one).startswith(given)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = listed([one.name for one in matches], 8)
            raise InputError(field, given, f"the name of one run, but {len(matches)} match: {names}")
    where = " or ".join(f"{name}/" for name in folders)
    expected = f"a directory, {LATEST}, or the name of a run in {where} or the beginning of it"
    raise InputError(
        field,
        given,
        expected,
        "`fedtlu runs` lists them." if known else "There are no runs there yet.",
        nearest(given, [name for one in known for name in (one.name, name_of(one))]),
    )


def run_directories(folders: Sequence[str] = FOLDERS) -> list[Path]:
    """Returns the directories of runs, comparisons and experiments, those that were begun last first.

    Args:
        folders: the folders that hold them; a folder that is missing holds none.
    """
    found: dict[Path, float] = {}
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                path = Path(folder, entry.name)
                if entry.is_dir() and (kind_of(path) is not None or _is_beginning(path)):
                    found[path] = began_at(path)
    return sorted(found, key=lambda path: (found[path], path.name), reverse=True)


def _is_beginning(path: Path) -> bool:
    """Whether a command made a directory for a run that has not written its settings yet."""
    return _STAMP.fullmatch(path.name) is not None and {item.name for item in path.iterdir()} <= BEGINNING


def kind_of(path: Path) -> Kind | None:
    """Returns what a directory holds; None if nothing was written yet, or if it is no run's."""
    if os.path.lexists(path / PLAN):
        return "experiment"
    if os.path.lexists(path / COMPARISON):
        return "comparison"
    return "run" if os.path.lexists(path / CONFIG) else None


def name_of(path: Path) -> str:
    """Returns the name of a run's directory, without the time in front."""
    stamped = _STAMP.fullmatch(path.name)
    return stamped[2] if stamped else path.name


def began_at(path: Path) -> float:
    """Returns when a run was begun, in seconds since 1970: the time in its name, or of its first file."""
    stamped = _STAMP.fullmatch(path.name)
    if stamped:
        with suppress(ValueError, OverflowError):
            return time.mktime(time.strptime(stamped[1], "%Y%m%d-%H%M%S"))
    for place in (path / PLAN, path / CONFIG, path):
        with suppress(OSError):
            return os.lstat(place).st_mtime
    return 0.0
