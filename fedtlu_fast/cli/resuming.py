"""Checks what is given beside --resume, and makes the settings of the run that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtlu_fast.cli.options import overrides_of
from fedtlu_fast.errors import InputError

if TYPE_CHECKING:
    from fedtlu_fast.config import RunConfig

OPTIONS = {"model__pretrained": "model", "run_name": "name"}
"""The options of settings that have another name."""


def refuse_beside_resume(**given: Any) -> None:
    """Raises an error for options that a resumed run would ignore.

    Args:
        given: option -> value, as for `settings_from`; None or an empty list means not given.

    Raises:
        InputError: Such an option is given.
    """
    expected = "no value beside --resume, because a resumed run keeps its settings"
    refuse(given, expected, "Leave it out, or start a new run without --resume.")


def refuse(given: Mapping[str, Any], expected: str, fix: str) -> None:
    """Raises an error for the first option that is given.

    Args:
        given: option -> value, as for `settings_from`; None or an empty list means not given.
        expected: what the error says instead of the right values.
        fix: what to do.

    Raises:
        InputError: Such an option is given.
    """
    for name, value in given.items():
        if value is not None and value != []:
            option = f"--{OPTIONS.get(name, name.rpartition('__')[2])}"
            raise InputError(option, str(value) if isinstance(value, Path) else value, expected, fix)


FREE = ("execution.", "checkpoint.", "rounds")
"""Settings that may change when a run is resumed: execution, checkpoints and the number of rounds."""


FREE_OF_COMPARISONS = (
    "execution.client_errors",
    "execution.client_seconds",
    "execution.retries",
    "checkpoint.",
)
"""Settings that may change when a comparison is resumed; its executor stays the same for all arms."""


def check_free(overrides: list[str] | None, free: tuple[str, ...] = FREE) -> list[str]:
    """Checks the overrides of --set that are given with --resume, and returns them.

    Raises:
        InputError: An override changes a setting that must stay the same.
    """
    from fedtlu_fast.config.names import full_key

    fixed = [text for text in overrides or [] if not full_key(text.partition("=")[0]).startswith(free)]
    refuse_beside_resume(set=fixed)
    return overrides or []


def resumed(directory: Path, overrides: list[str] | None, **given: Any) -> RunConfig:
    """Returns the settings of a run to resume, with the given changes.

    Args:
        directory: the directory of the run.
        overrides: the overrides of --set.
        given: values of dotted settings, as for `settings_from`.

    Raises:
        InputError: There is no such run, or a change is not allowed.
    """
    from fedtlu_fast.build.stored import read_stored
    from fedtlu_fast.config.settings import laid_over

    changes = check_free(overrides)
    return laid_over(read_stored(directory), [*changes, *overrides_of(given)])
