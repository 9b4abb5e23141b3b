"""The name of a data set that `datasets` loads, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fedtlu_fast.errors import InputError

_BEHIND_A_PATH = re.compile(r"(?::(?P<configuration>[^@]+))?(?:@(?P<revision>[^/@]+))?")


@dataclass(frozen=True)
class Location:
    """Where a data set is.

    Attributes:
        name: on the hub, or the path of a local folder.
        configuration: one of its configurations, or empty.
        revision: one of its revisions, or empty.
    """

    name: str
    configuration: str = ""
    revision: str = ""

    @property
    def source(self) -> str:
        """The data set as messages name it."""
        return f"hf:{self.name}:{self.configuration}" if self.configuration else f"hf:{self.name}"


def read_location(location: str) -> Location:
    """Takes ``NAME[:CONFIG][@REVISION]`` apart; the path of a local folder may hold colons and at signs.

    Raises:
        InputError: it is a path, and nothing is there.
    """
    for end in sorted({len(location), *(own.start() for own in re.finditer("[:@]", location))}, reverse=True):
        rest = _BEHIND_A_PATH.fullmatch(location, end)
        if rest and _exists(location[:end]):
            path = str(Path(location[:end]).expanduser())
            return Location(path, rest["configuration"] or "", rest["revision"] or "")
    if location.startswith(("/", "./", "../", "~")):
        raise InputError(
            "data.source", f"hf:{location}", "a data set: a folder that exists; this one does not"
        )
    source, _, revision = location.partition("@")
    name, _, configuration = source.partition(":")
    return Location(name, configuration, revision)


def _exists(path: str) -> bool:
    try:
        return bool(path) and Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False
