"""The settings of a run as its directory holds them: names and values that this room compares and writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fedtlu_fast.yaml_text import dump_yaml, flat

SCRIPT = "__main__"
"""The name of a module that runs as a script."""


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

    def sha256(self, own_modules: Collection[str] = ()) -> str:
        """The digest of the settings that decide the result, as checkpoints hold it.

        Args:
            own_modules: the user's modules, whose names do not count: the same part is ``__main__:Mine`` in
                a script and ``my_script:Mine`` where the script is imported.
        """
        counted = _without(self.deciding, own_modules)
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()

    def with_rounds(self, rounds: int) -> StoredSettings:
        """The settings of the same run with another number of rounds, which decides nothing."""
        return StoredSettings({**self.complete, "rounds": rounds}, self.deciding)

    def changed(self, other: StoredSettings) -> dict[str, tuple[Any, Any]]:
        """The deciding settings that differ from another run's: by dotted name, this value and the other one.

        A part that was defined in a script is not counted as changed if the other has the same name in
        another module.
        """
        one, two = dict(flat(self.deciding)), dict(flat(other.deciding))
        pairs = {name: (one.get(name), two.get(name)) for name in dict.fromkeys([*one, *two])}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1] and not _same_script(*pair)}


def _without(value: Any, modules: Collection[str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _without(item, modules) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without(item, modules) for item in value]
    module, colon, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    return name if colon and module in modules else value


def _same_script(one: Any, two: Any) -> bool:
    """Tells whether two values name the same part, of a script that also is a module."""
    if not (isinstance(one, str) and isinstance(two, str)):
        return False
    (first, _, name), (second, _, other) = one.partition(":"), two.partition(":")
    return name == other != "" and SCRIPT in (first, second)
