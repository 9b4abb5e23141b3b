"""The errors of the package; those for bad input name the field, the value and the fix."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Sequence
from typing import Any

from fedtlu_fast.shown import visible
from fedtlu_fast.wording import JOBS, RESUME, either, in_python, on_command_line

MOST_NAMES = 12
"""A message lists at most this many names."""


class FedtluError(Exception):
    """Base of every error this package raises on purpose.

    Its message is one line, even if names of files, labels or tensors in it have several, and it is in the
    wording of Python.
    """

    def __str__(self) -> str:
        return visible(in_python(self._message()))

    def on_command_line(self) -> str:
        """The message in the wording of the command line (see `wording`)."""
        return visible(on_command_line(self._message()))

    def _message(self) -> str:
        """The whole message, with both wordings."""
        return super().__str__()


class InputError(FedtluError, ValueError):
    """An argument, setting or file is wrong; nothing was written. The command line exits with 2.

    Args:
        field: the setting, file or argument, by the name the user knows.
        value: its value.
        expected: the values that would have been right.
        fix: what to do now; empty if `expected` already says it.
        near: the value that was perhaps meant (see `nearest`); the message says it first.
    """

    def __init__(self, field: str, value: Any, expected: str, fix: str = "", near: str = "") -> None:
        self.value, self._parts = value, (field, value, expected, fix, near)
        self.field, self.expected, self.fix = map(in_python, (field, expected, fix))
        then = f". Did you mean {near}? Expected" if near else "; expected"
        message = f"{field}: got {shorten(value)}{then} {expected}"
        super().__init__(f"{message}. {fix}" if fix else message)

    def __reduce__(self) -> tuple[type[InputError], tuple[Any, ...]]:
        # By default, unpickling rebuilds exceptions from their message; worker processes need the parts.
        return type(self), self._parts

    def of(self, field: str) -> InputError:
        """The same error with a longer name of the field."""
        return InputError(field, *self._parts[1:])


class BackendUnavailableError(FedtluError, RuntimeError):
    """A backend was asked for by name and cannot run here; the message says why and what would help."""


class ResumableError(FedtluError):
    """Something stopped the work; it can be resumed from the saved state when the cause is fixed.

    Its message ends with how to resume, so its first part should say what to fix.

    Attributes:
        go_on: how to resume; each command replaces it by its own way.
    """

    go_on = f"go on by {RESUME}"

    def _message(self) -> str:
        return f"{super()._message()}, then {self.go_on}"


class StorageError(ResumableError, OSError):
    """The run directory cannot be written (most often, the disk is full). Earlier files are intact."""


class ClientError(ResumableError):
    """A client's training or test failed: its data or the model raised, or it took too long.

    Args:
        client: its number.
        round_index: the round in progress, or the last finished one.
        reason: the error that was raised.
        done: whether the round was finished, and the client failed after it.
    """

    def __init__(self, client: int, round_index: int, reason: str, done: bool = False) -> None:
        self.client, self.round_index, self.reason, self.done = client, round_index, reason, done
        where = f"after round {round_index}" if done else f"in round {round_index}"
        kept = "All rounds that were done are kept" if done else "Nothing of that round was kept"
        super().__init__(f"client {client} failed {where}: {reason}. {kept}; fix this")

    def _message(self) -> str:
        leave_out = f"{either('', '--set ')}execution.client_errors=drop"
        return f"{super()._message()}; to leave such clients out, add {leave_out}"

    def __reduce__(self) -> tuple[type[ClientError], tuple[Any, ...], dict[str, Any]]:
        return type(self), (self.client, self.round_index, self.reason, self.done), {"go_on": self.go_on}


class WorkerError(ResumableError):
    """Worker processes keep ending, or cannot be started; the message says what to change."""


LESS_MEMORY = (
    f"use fewer execution.workers, of a comparison fewer {JOBS} (a smaller execution.clients_per_batch or "
    f"training.batch_size needs a new run)"
)
"""What to change if memory is short."""


class InterruptedRunError(FedtluError):
    """The run was stopped by the user; its directory can be resumed.

    Args:
        message: how far the run came, and how to resume it.
        after: the exception that stopped it, which may know its signal.

    Attributes:
        number: the signal's number; the command line exits with 128 plus this number.
    """

    def __init__(self, message: str, after: object = None) -> None:
        self.number = int(getattr(after, "number", None) or signal.SIGINT)
        super().__init__(message)


def shorten(value: Any, limit: int = 120) -> str:
    """`repr` of a value, cut to `limit` characters, for messages."""
    try:
        text = visible(repr(value))
    except Exception:  # an integer with more digits than Python prints; an object of the user's
        text = f"a value of {type(value).__name__} that cannot be shown"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def cause(error: BaseException) -> str:
    """Type and message of an error from other code, shortened, for messages."""
    try:
        text = shorten(str(error), 600 if isinstance(error, FedtluError) else 120)
    except Exception:  # its own text fails
        text = "no message"
    return f"{type(error).__name__}: {text}"


def check_kind(field: str, value: Any, kind: type | tuple[type, ...], expected: str) -> None:
    """Raises `InputError` if an argument has another type."""
    if not isinstance(value, kind):
        raise InputError(field, value, expected)


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names for a message: the first few, and the number of the rest."""
    more = len(names) - most
    return ", ".join(map(visible, names[:most])) + (f" and {more:,} more" if more > 0 else "")


def nearest(value: Any, known: Iterable[str], least: float = 0.6) -> str:
    """The known name that is most similar to a value; empty if none is at least `least` (1: equal)."""
    near = difflib.get_close_matches(str(value).lower(), list(known), n=1, cutoff=least)
    return near[0] if near else ""


def choice(names: Iterable[str], see: str = "") -> str:
    """All names, each once, for a message; at most the first `MOST_NAMES`.

    Args:
        names: the names in order.
        see: where all of them are listed.
    """
    each = list(dict.fromkeys(map(visible, names)))
    if len(each) <= MOST_NAMES:
        return ", ".join(each)
    shown = each[: MOST_NAMES - 2]
    where = f" ({see} lists all)" if see else ""
    return f"{', '.join(shown)} and {len(each) - len(shown)} more{where}"


def not_one_of(
    field: str, value: Any, names: Iterable[str], words: str = "one of", see: str = ""
) -> InputError:
    """The error for a name that is not one of the known names.

    Args:
        field: see `InputError`.
        value: see `InputError`.
        names: the known names.
        words: the words before the list, such as "some of".
        see: see `choice`.
    """
    known = list(names)
    return InputError(field, value, f"{words} {choice(known, see)}", near=nearest(value, known))
