"""Files that carry a digest of themselves, so that a changed bit is seen before anything follows from it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.runs.files import read_file

KEY = "sha256"
SEAL = "# sha256 of the lines above: "


class DamagedError(ValueError):
    """A file is not what was written: the message says in which way."""


def seal_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with a last entry, ``sha256``, of all others; it has to hold what JSON can say."""
    return {**content, KEY: _sha256(_canonical(content))}


def unseal_json(data: bytes) -> dict[str, Any]:
    """What `seal_json` was given.

    Raises:
        DamagedError: it is not JSON, or its entries are not those that were written.
    """
    try:
        content = json.loads(data)
        said = content.pop(KEY, None)
        if said != _sha256(_canonical(content)):
            raise DamagedError("its content does not match its digest")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedError(
            str(error) if isinstance(error, DamagedError) else "it is cut off, or no JSON"
        ) from None
    return dict(content)


def seal_yaml(text: str) -> str:
    """YAML with a last line, a comment, that holds the SHA-256 of the lines before it."""
    return f"{text}{SEAL}{_sha256(text.encode())}\n"


def read_sealed_yaml(path: Path, what: str) -> str:
    """The YAML in a file that was written through `seal_yaml`.

    Args:
        path: of the file.
        what: it holds, for the message.

    Raises:
        InputError: it cannot be read, or is not what was written.
    """
    expected = f"{what} as they were written"
    fix = "Put the file back as it was, or begin anew in another directory."
    try:
        text = read_file(path).decode()
    except FileNotFoundError:
        raise InputError(str(path), "no file", expected, fix) from None
    except OSError as error:
        raise InputError(str(path), error.strerror, expected, fix) from None
    except UnicodeDecodeError:
        raise InputError(str(path), "a file that is damaged", expected, fix) from None
    body = text.rpartition(SEAL)[0]
    if text != seal_yaml(body):
        sealed = re.search(r"^# sha256", text, re.MULTILINE)
        # Earlier versions wrote none.
        state = "changed since, or damaged" if sealed else "changed since, or made by an earlier version"
        raise InputError(str(path), f"a file that was {state}", expected, fix)
    return body


def is_sealed_yaml(path: Path) -> bool:
    """Tells whether a file holds what was written through `seal_yaml`."""
    try:
        read_sealed_yaml(path, "")
    except InputError:
        return False
    return True


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
