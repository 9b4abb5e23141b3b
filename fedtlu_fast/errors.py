"""Defines the errors of the package; an error about bad input names the field, the value and the fix."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fedtlu_fast.shown import visible
from fedtlu_fast.wording import JOBS, OUT, RESUME, either, in_python, on_command_line

MOST_NAMES = 12
"""A message lists at most this many names."""


class FedtluError(Exception):
    """The base of every error that this package raises on purpose.

    The message is one line, even if it contains names of files, labels or tensors with line breaks. It uses
    the names that Python users know.
    """

    def __str__(self) -> str:
        return visible(in_python(self._message()))

    def on_command_line(self) -> str:
        """Returns the message with the names that users of the command line know (see `wording`)."""
        return visible(on_command_line(self._message()))

    def _message(self) -> str:
        """Returns the whole message with both wordings."""
        return super().__str__()


class InputError(FedtluError, ValueError):
    """An argument, setting or file is wrong; nothing was written. The command line exits with 2.

    Args:
        field: the setting, file or argument, by the name that the user knows.
        value: the value that was given.
        expected: a description of the values that are right.
        fix: a sentence that says what to do; empty if `expected` already says it.
        near: the value that was probably meant (see `nearest`); the message suggests it first.
    """

    def __init__(self, field: str, value: Any, expected: str, fix: str = "", near: str = "") -> None:
        self.value, self._parts = value, (field, value, expected, fix, near)
        self.field, self.expected, self.fix = map(in_python, (field, expected, fix))
        then = f". Did you mean {near}? Expected" if near else "; expected"
        message = f"{field}: got {shorten(value)}{then} {expected}"
        super().__init__(f"{message}. {fix}" if fix else message)

    def __reduce__(self) -> tuple[type[InputError], tuple[Any, ...]]:
        # Pickle rebuilds exceptions from their message alone, but errors from workers need all parts.
        return type(self), self._parts

    def of(self, field: str) -> InputError:
        """Returns the same error with another name of the field, such as a longer one."""
        return InputError(field, *self._parts[1:])


class BackendUnavailableError(FedtluError, RuntimeError):
    """A named backend cannot run here; the message says why and what would help."""


class ResumableError(FedtluError):
    """Something stopped the work, which can be resumed from the saved state when the cause is fixed.

    The message ends with the way to resume, so its first part should say what to fix.

    Attributes:
        how_to_resume: the end of the message; each command replaces it by the command to resume with.
        saved: whether there is a saved state; a run without a directory has none.
    """

    how_to_resume = f"you can resume it with {RESUME}"
    saved = True

    def _message(self) -> str:
        again = self.how_to_resume if self.saved else f"run it again; with {OUT} it could be resumed"
        return f"{self._what()}, then {again}"

    def _what(self) -> str:
        """Returns what happened and what to fix."""
        return super()._message()


@contextmanager
def resumes_nothing() -> Iterator[None]:
    """Has errors within say that the same can be done again, because there is no run to resume."""
    try:
        yield
    except ResumableError as error:
        error.how_to_resume = "do the same again"
        raise


class StorageError(ResumableError, OSError):
    """The run directory cannot be written, most often because the disk is full. Earlier files are intact."""


class ClientError(ResumableError):
    """A client's training or test failed: its data or the model raised an error, or it took too long.

    Args:
        client: the client's number.
        round_index: the current round, or the last finished one.
        reason: the error that was raised.
        done: whether the client failed after the round was finished.
    """

    def __init__(self, client: int, round_index: int, reason: str, done: bool = False) -> None:
        self.client, self.round_index, self.reason, self.done = client, round_index, reason, done
        where = f"after round {round_index}" if done else f"in round {round_index}"
        super().__init__(f"client {client} failed {where}: {reason}")

    def _what(self) -> str:
        kept = "All finished rounds are kept" if self.done else "Nothing of that round was kept"
        kept = kept if self.saved else "The run has no directory, so nothing was saved"
        return f"{super()._what()}. {kept}; fix the cause"

    def _message(self) -> str:
        leave_out = f"{either('', '--set ')}execution.client_errors=drop"
        return f"{super()._message()}; to leave such clients out, add {leave_out}"

    def __reduce__(self) -> tuple[type[ClientError], tuple[Any, ...], dict[str, Any]]:
        return (
            type(self),
            (self.client, self.round_index, self.reason, self.done),
            {"how_to_resume": self.how_to_resume, "saved": self.saved},
        )


class WorkerError(ResumableError):
    """Worker processes end again and again, or cannot be started; the message says what to change."""


LESS_MEMORY = (
    f"use fewer execution.workers, or fewer {JOBS} for a comparison (a smaller execution.clients_per_batch "
    f"or training.batch_size needs a new run)"
)
"""The advice to a user whose memory is short."""


class InterruptedRunError(FedtluError):
    """The user stopped the run; its directory can be resumed.

    Args:
        message: tells how far the run came, and how to resume it.
        after: the exception that stopped the run, which may hold the number of a signal.

    Attributes:
        number: the signal's number; the command line exits with 128 plus this number.
    """

    def __init__(self, message: str, after: object = None) -> None:
        self.number = int(getattr(after, "number", None) or signal.SIGINT)
        super().__init__(message)


def shorten(value: Any, limit: int = 120) -> str:
    """Returns the `repr` of a value for messages, cut to `limit` characters."""
    try:
        text = visible(repr(value))
    except Exception:  # an integer with more digits than Python prints, or the user's own object
        text = f"a value of {type(value).__name__} that cannot be shown"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def kind_of(value: Any) -> Any:
    """Returns what a message says of a value: dtype and shape of a tensor or an array, else the value."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{type(value).__name__} of {value.dtype} and shape {tuple(value.shape)}"
    return value


def cause(error: BaseException) -> str:
    """Returns the type and the shortened message of an error from other code, for messages."""
    try:
        text = shorten(str(error), 600 if isinstance(error, FedtluError) else 120)
    except Exception:  # the error's own __str__ fails
        text = "no message"
    return f"{type(error).__name__}: {text}"


def check_kind(field: str, value: Any, kind: type | tuple[type, ...], expected: str) -> None:
    """Raises `InputError` unless an argument is an instance of `kind`."""
    if not isinstance(value, kind):
        raise InputError(field, value, expected)


def listed(names: Sequence[str], most: int = 4) -> str:
    """Lists names for a message: the first `most`, and the number of the others."""
    more = len(names) - most
    return ", ".join(map(visible, names[:most])) + (f" and {more:,} more" if more > 0 else "")


def nearest(value: Any, known: Iterable[str], least: float = 0.6) -> str:
    """Returns the known name that is most similar to a value.

    Args:
        value: the unknown name.
        known: the known names.
        least: the least similarity, from 0 (nothing in common) to 1 (equal).

    Returns:
        The name, or "" if no name is similar enough.
    """
    near = difflib.get_close_matches(str(value).lower(), list(known), n=1, cutoff=least)
    return near[0] if near else ""


def choice(names: Iterable[str], see: str = "") -> str:
    """Lists each name once for a message; at most the first `MOST_NAMES`.

    Args:
        names: the names in order.
        see: the function, command or page that lists all names.
    """
    each = list(dict.fromkeys(map(visible, names)))
    if len(each) <= MOST_NAMES:
        return ", ".join(each)
    shown = each[: MOST_NAMES - 2]
    where = f" ({see} lists all names)" if see else ""
    return f"{', '.join(shown)} and {len(each) - len(shown)} more{where}"


def not_one_of(
    field: str, value: Any, names: Iterable[str], words: str = "one of", see: str = ""
) -> InputError:
    """Returns the error for a name that is not one of the known names.

    Args:
        field: the setting or argument, as for `InputError`.
        value: the unknown name.
        names: the known names.
        words: the words before the list, such as "some of".
        see: the function, command or page that lists all names, as for `choice`.
    """
    known = list(names)
    return InputError(field, value, f"{words} {choice(known, see)}", near=nearest(value, known))
