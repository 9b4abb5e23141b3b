"""Between the settings of a run and what its directory holds of them."""

from __future__ import annotations

from pathlib import Path

from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.settings import read_config
from fedtlu_fast.runs.directory import CONFIG, RunDirectory
from fedtlu_fast.runs.settings import StoredSettings
from fedtlu_fast.wording import RESUMED


def stored(config: RunConfig) -> StoredSettings:
    """Settings as a run directory holds them.

    Raises:
        InputError: a part of the user's has no name, so that no file can hold it.
    """
    return StoredSettings(config.written(), config.deciding())


def read_stored(path: Path, field: str = RESUMED) -> RunConfig:
    """The settings of a run that was begun before.

    A part of the user's that cannot be imported here is `Unfound`: such a run can be shown, but not go on.

    Args:
        path: the run's directory.
        field: the argument that names it, for the message.

    Raises:
        InputError: there is no run, or its settings are not as they were written.
    """
    _, text = RunDirectory.open(path, field)
    return read_config(text, path / CONFIG)
