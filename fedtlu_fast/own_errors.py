"""Errors that the user's own parts raise are reported with the setting and the line that they come from."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedtlu_fast.errors import FedtluError, InputError, cause
from fedtlu_fast.memory import is_out_of_memory

PACKAGE = Path(__file__).parent


@contextmanager
def named_errors(field: str, part: object) -> Iterator[None]:
    """Turns what a part of the user's raises inside into an error that names the part.

    Errors of this package stay as they are, and so does a lack of memory. What a part of this package raises
    stays too: it is a bug of ours, and its traceback is needed.

    Args:
        field: the setting that chooses the part.
        part: the part, or an object that it made.

    Raises:
        InputError: the part raised; the message has the error and the file and line in the user's code.
    """
    try:
        yield
    except FedtluError:
        raise
    except Exception as error:
        kind = type(part)
        if is_ours(part) or is_out_of_memory(error):
            raise
        name = f"{kind.__module__}:{kind.__qualname__}"
        expected = f"a part that raises no error; it raised {cause(error)} ({_place(error)})"
        raise InputError(field, name, expected) from error


def is_ours(part: object) -> bool:
    """Tells whether the class of a part belongs to this package."""
    return type(part).__module__.partition(".")[0] == PACKAGE.name


def _place(error: Exception) -> str:
    """Returns the file and line of the innermost call in the user's code, not in a library."""
    calls = traceback.extract_tb(error.__traceback__)
    own = [call for call in calls if not _is_library(Path(call.filename))]
    place = (own or calls)[-1]
    return f"{place.filename}:{place.lineno}"


def _is_library(file: Path) -> bool:
    return PACKAGE in file.parents or bool({"site-packages", "dist-packages"} & set(file.parts))
