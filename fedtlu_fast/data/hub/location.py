"""The place of a data set that `datasets` loads, and how settings write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BEHIND_A_PATH = re.compile(r"(?::(?P<configuration>[^@]+))?(?:@(?P<revision>[^/@]+))?")


@dataclass(frozen=True)
class Location:
    """The place of a data set.

    Attributes:
        name: its name on the hub, or the path of a local folder.
        configuration: one of its configurations, or empty.
        revision: one of its revisions, or empty.
    """

    name: str
    configuration: str = ""
    revision: str = ""

    @property
    def source(self) -> str:
        """The data set as messages show it, ``hf:NAME[:CONFIG]``."""
        return f"hf:{self.name}:{self.configuration}" if self.configuration else f"hf:{self.name}"

    @property
    def text(self) -> str:
        """The place as settings write it, ``NAME[:CONFIG][@REVISION]``."""
        configuration = f":{self.configuration}" if self.configuration else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.name}{configuration}{revision}"

    @property
    def folder(self) -> Path | None:
        """The local folder, with ``~`` replaced by the home directory; None for a name on the hub."""
        return Path(self.name).expanduser() if _exists(self.name) else None

    @property
    def is_path(self) -> bool:
        """Whether the name is a path and cannot be a name on the hub."""
        return self.name.startswith(("/", "./", "../", "~"))


def read_location(text: str) -> Location:
    """Parses ``NAME[:CONFIG][@REVISION]``; the path of a local folder may contain ``:`` and ``@``."""
    for end in sorted({len(text), *(own.start() for own in re.finditer("[:@]", text))}, reverse=True):
        rest = _BEHIND_A_PATH.fullmatch(text, end)
        if rest and _exists(text[:end]):
            return Location(text[:end], rest["configuration"] or "", rest["revision"] or "")
    source, _, revision = text.partition("@")
    name, _, configuration = source.partition(":")
    return Location(name, configuration, revision)


def _exists(path: str) -> bool:
    try:
        return bool(path) and Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False
