"""The checkpoints of a run: which there are, and which of them are whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fedtlu_fast.errors import InputError
from fedtlu_fast.runs.facts import CheckpointFacts, EarlierVersionError, read_facts
from fedtlu_fast.runs.files import NotAFileError, check_folder
from fedtlu_fast.runs.logs import changed_log
from fedtlu_fast.runs.sealed import DamagedError
from fedtlu_fast.wording import RESUMED


def whole_checkpoints(folder: Path) -> Iterator[tuple[Path, CheckpointFacts]]:
    """Checkpoints, the latest first, whose state.json and lines of the logs are as they were written."""
    for path in reversed(complete_checkpoints(folder)):
        with suppress(DamagedError, EarlierVersionError):
            facts = read_facts(path)
            if changed_log(folder.parent, facts.logs, facts.round) is None:
                yield path, facts


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints that were not cut short while they were written, the earliest first."""
    try:
        found = folder.iterdir() if check_folder(folder) else ()
    except NotAFileError as error:
        raise InputError(RESUMED, str(folder), f"the folder of the checkpoints; {error.strerror}") from None
    return sorted((path for path in found if re.fullmatch(r"round-\d{6,}", path.name)), key=round_of)


def round_of(path: Path) -> int:
    """The round in a checkpoint's name."""
    return int(path.name.removeprefix("round-"))
