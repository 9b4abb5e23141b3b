"""``state.json`` of a checkpoint: what it is, and digests of everything that it stands on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from fedtlu_fast.runs.control import Control
from fedtlu_fast.runs.files import file_sha256, read_file
from fedtlu_fast.runs.sealed import KEY, DamagedError, seal_json, unseal_json

FORMAT: Final = 4
"""Raised when checkpoints of earlier versions cannot be read any more. Version 1 had no digest of the file
itself; version 2 had files of their own for what some parts remember; version 3 had names of
memories that could be confused."""
STATE = "state.json"

Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
WEIGHTS: Final = "model.safetensors"
MEMORY: Final = "memory.safetensors"


class EarlierVersionError(ValueError):
    """A checkpoint of a version whose files cannot be read any more."""


class CheckpointFacts(BaseModel):
    """The content of state.json, all of it: another key is damage, and so is one that is missing.

    Only `control` may be missing: earlier versions had no such thing.

    Attributes:
        format: of the checkpoint.
        round: rounds done.
        params_sha256: of the parameter vector, as the summary of a run has it.
        model_sha256: of model.safetensors, the file.
        memory_sha256: of memory.safetensors; None where there is none.
        logs: SHA-256 of the first `round` lines of the logs that results follow from, by name.
        identity: what a resumed run must share (digests of settings and data).
        environment: where it was written, by name: a resumed run that differs says so and goes on.
        control: what callbacks have changed.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal[4]
    round: int
    params_sha256: Digest
    model_sha256: Digest
    memory_sha256: Digest | None
    logs: dict[str, Digest]
    identity: dict[str, str]
    environment: dict[str, str]
    control: Control = Control()

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of the checkpoint's other files, by name."""
        digests = {
            WEIGHTS: self.model_sha256,
            MEMORY: self.memory_sha256,
        }
        return {name: digest for name, digest in digests.items() if digest is not None}


def facts_text(facts: CheckpointFacts) -> str:
    """The file's content."""
    return json.dumps(seal_json(facts.model_dump()), indent=1) + "\n"


def read_facts(folder: Path) -> CheckpointFacts:
    """What a checkpoint says of itself; its other files have not been looked at.

    Raises:
        DamagedError: it is not what was written.
        EarlierVersionError: it was written by an earlier version.
    """
    try:
        data = read_file(folder / STATE)
    except OSError as error:
        raise DamagedError(f"{STATE}: {error.strerror}") from None
    if _earlier(data):
        raise EarlierVersionError(str(folder))
    try:
        return CheckpointFacts.model_validate(unseal_json(data))
    except DamagedError as error:
        raise DamagedError(f"{STATE}: {error}") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise DamagedError(f"{STATE}: {where} is not what it has to be") from None


def check_files(folder: Path, facts: CheckpointFacts) -> None:
    """Makes sure that the tensors of a checkpoint are those that were written.

    Raises:
        DamagedError: one is not.
    """
    for name, digest in facts.files.items():
        try:
            found = file_sha256(folder / name)
        except OSError as error:
            raise DamagedError(f"{name}: {error.strerror}") from None
        if found != digest:
            raise DamagedError(f"{name} was changed")


def _earlier(data: bytes) -> bool:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return False
    if not isinstance(content, dict):
        return False
    form = content.get("format")
    return form in (2, 3) or (form == 1 and KEY not in content)
