"""What the package raises at bad input: one message with the field, the value and the way to mend it."""

from __future__ import annotations

from typing import Any


class FedtluError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(FedtluError, ValueError):
    """Something the user gave is wrong; nothing was written. The command line exits with 2.

    Args:
        field: what was given, by the name the user knows it (a setting, a file, an argument).
        value: what it was.
        expected: what would have been right.
        fix: what to do now; empty when `expected` already says it.
    """

    def __init__(self, field: str, value: Any, expected: str, fix: str = "") -> None:
        self.field, self.value, self.expected, self.fix = field, value, expected, fix
        message = f"{field}: got {shorten(value)}; expected {expected}"
        super().__init__(f"{message}. {fix}" if fix else message)

    def __reduce__(self) -> tuple[type[InputError], tuple[Any, ...]]:
        # Exceptions are rebuilt from their message by default; worker processes need the four parts.
        return type(self), (self.field, self.value, self.expected, self.fix)


class BackendUnavailableError(FedtluError, RuntimeError):
    """A backend was asked for by name and cannot run here; the message says why and what would help."""


class StorageError(FedtluError, OSError):
    """The run directory cannot be written (a full disk, most often). What was written before is intact."""


class InterruptedRunError(FedtluError):
    """The run was stopped by the user; its directory can be resumed."""


def shorten(value: Any, limit: int = 120) -> str:
    """`repr` of a value, cut to `limit` characters, for messages."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
