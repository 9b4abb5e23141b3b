"""The directories that commands make for their runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import count
from pathlib import Path

from fedtlu_fast.cli.console import note
from fedtlu_fast.errors import InputError, InterruptedRunError, ResumableError
from fedtlu_fast.places import portable
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.shown import shell_word


@contextmanager
def place_of_run(
    command: str, begun: Path | None, out: Path | None, fresh: str, *, quiet: bool
) -> Iterator[Path]:
    """Settles where a run or comparison writes, and says so; its errors say how to resume it.

    Args:
        command: ``run`` or ``compare``.
        begun: the directory of an earlier run that goes on; None for a new run.
        out: the directory of a new run that the user names; None for a new one in runs/.
        fresh: the name of the new one in runs/.
        quiet: whether nothing is printed.

    Raises:
        InputError: The directory cannot be had.
    """
    if begun is None and out is not None:
        RunDirectory.check_free(out)
    named = begun or out
    with (
        nullcontext(named) if named is not None else fresh_directory(fresh) as directory,
        adding_how_to_resume(command, directory),
    ):
        if not quiet:
            say_where(directory)
        yield directory


def say_where(directory: Path) -> None:
    """Prints where a run writes, before its slow start, and how to watch it from another terminal."""
    note(f"Run: {directory}   To watch it from elsewhere: fedtlu watch {shell_word(directory)}")


@contextmanager
def adding_how_to_resume(command: str, directory: Path) -> Iterator[None]:
    """Adds to the errors that stop a run or a comparison how the user can resume it.

    Args:
        command: ``run`` or ``compare``.
        directory: the directory of the run or the comparison.
    """
    how = f"you can resume it with: fedtlu {command} --resume {shell_word(directory)}"
    try:
        yield
    except ResumableError as error:
        begun = os.path.exists(directory / "config.yaml")
        error.how_to_resume = how if begun else "give the same command again"
        raise
    except KeyboardInterrupt as interrupt:
        begun = os.path.exists(directory / "config.yaml")
        raise InterruptedRunError(how if begun else "nothing was written yet", interrupt) from None


@contextmanager
def fresh_directory(name: str) -> Iterator[Path]:
    """Creates a new directory in runs/, named after the time; removes it if nothing was written into it.

    If two runs begin in the same second, the second one gets another name.

    Raises:
        InputError: The directory cannot be created.
    """
    folder = Path("runs")
    stem, made = f"{time.strftime('%Y%m%d-%H%M%S')}-{portable(name)}", not folder.exists()
    for number in count(1):
        path = folder / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
            break
        except OSError as error:
            if not path.exists():
                expected = f"a directory that can be created; {error.strerror}"
                raise InputError("--out", str(path), expected, "Name another directory.") from error
    try:
        yield path
    finally:
        with suppress(OSError):
            path.rmdir()
            if made:
                folder.rmdir()
