"""The settings of a run as its directory holds them: names and values that this room compares and writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedtlu_fast.yaml_text import dump_yaml


@dataclass(frozen=True)
class StoredSettings:
    """All settings of a run, and those that decide its result.

    Attributes:
        complete: all that config.yaml holds: nested, with values as JSON has them.
        deciding: nested likewise, those that a run must share with the run that it goes on with.
    """

    complete: Mapping[str, Any]
    deciding: Mapping[str, Any]

    @property
    def rounds(self) -> int:
        """How many rounds the run has."""
        return int(self.complete["rounds"])

    @property
    def text(self) -> str:
        """The content of config.yaml."""
        return dump_yaml(self.complete)

    @property
    def sha256(self) -> str:
        """The digest of the settings that decide the result, as checkpoints hold it."""
        return hashlib.sha256(json.dumps(self.deciding, sort_keys=True).encode()).hexdigest()

    def with_rounds(self, rounds: int) -> StoredSettings:
        """The settings of the same run with another number of rounds, which decides nothing."""
        return StoredSettings({**self.complete, "rounds": rounds}, self.deciding)

    def changed(self, other: StoredSettings) -> list[str]:
        """The deciding settings that differ from another run's, by their dotted names."""
        one, two = dict(_flat(self.deciding, "")), dict(_flat(other.deciding, ""))
        return [name for name in dict.fromkeys([*one, *two]) if one.get(name) != two.get(name)]


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
