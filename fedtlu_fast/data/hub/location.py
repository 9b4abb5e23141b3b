"""The name of a data set that `datasets` loads, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

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

    @property
    def text(self) -> str:
        """``NAME[:CONFIG][@REVISION]``."""
        configuration = f":{self.configuration}" if self.configuration else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.name}{configuration}{revision}"

    @property
    def folder(self) -> Path | None:
        """The local folder, with the home in place of ``~``; None for a name on the hub."""
        return Path(self.name).expanduser() if _exists(self.name) else None

    @property
    def is_path(self) -> bool:
        """Whether the name can be nothing but a path."""
        return self.name.startswith(("/", "./", "../", "~"))


def read_location(text: str) -> Location:
    """Takes ``NAME[:CONFIG][@REVISION]`` apart; the path of a local folder may hold colons and at signs."""
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
