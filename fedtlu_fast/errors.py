"""What the package raises at bad input: one message with the field, the value and the way to mend it."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Sequence
from typing import Any

from fedtlu_fast.shown import visible


class FedtluError(Exception):
    """Base of every error this package raises on purpose.

    Its message is one line, whatever names of files, labels and tensors are in it.
    """

    def __str__(self) -> str:
        return visible(super().__str__())


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


class ResumableError(FedtluError):
    """Something stopped the work, which goes on from what was saved when that is mended.

    Its message ends with how to go on, so that its own part says what to mend.

    Attributes:
        go_on: how; each command puts what works for it here.
    """

    go_on = "go on by --resume"

    def __str__(self) -> str:
        return f"{super().__str__()}, then {self.go_on}"


class StorageError(ResumableError, OSError):
    """The run directory cannot be written (a full disk, most often). What was written before is intact."""


class ClientError(ResumableError):
    """A client's training or test failed: its data or the model raised, or it took too long.

    Args:
        client: its number.
        round_index: the round under way, or the last one done.
        reason: what was raised.
        done: whether the round was done, and the client failed in what follows the rounds.
    """

    def __init__(self, client: int, round_index: int, reason: str, done: bool = False) -> None:
        self.client, self.round_index, self.reason, self.done = client, round_index, reason, done
        where = f"after round {round_index}" if done else f"in round {round_index}"
        kept = "All rounds that were done are kept" if done else "Nothing of that round was kept"
        super().__init__(f"client {client} failed {where}: {reason}. {kept}; mend this")

    def __str__(self) -> str:
        return f"{super().__str__()}; to leave such clients out, add --set execution.client_errors=drop"

    def __reduce__(self) -> tuple[type[ClientError], tuple[Any, ...]]:
        return type(self), (self.client, self.round_index, self.reason, self.done)


class WorkerError(ResumableError):
    """Worker processes are lost again and again, or cannot be started; the message says what to change."""


LESS_MEMORY = (
    "use fewer execution.workers, of a comparison fewer --jobs (a smaller execution.at_once or "
    "training.batch_size needs a new run)"
)
"""What to mend where memory is short."""


class InterruptedRunError(FedtluError):
    """The run was stopped by the user; its directory can be resumed.

    Args:
        message: how far it came, and how to go on.
        after: what stopped it, where it knows its signal.

    Attributes:
        number: of the signal; the command line exits with 128 more.
    """

    def __init__(self, message: str, after: object = None) -> None:
        self.number = int(getattr(after, "number", None) or signal.SIGINT)
        super().__init__(message)


def shorten(value: Any, limit: int = 120) -> str:
    """`repr` of a value, cut to `limit` characters, for messages."""
    try:
        text = visible(repr(value))
    except Exception:  # a whole number of more digits than Python writes; an object of the user's
        text = f"a value of {type(value).__name__} that cannot be shown"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def cause(error: BaseException) -> str:
    """Kind and message of an error that others raised, cut short, for messages."""
    try:
        text = shorten(str(error))
    except Exception:  # its own text fails
        text = "no message"
    return f"{type(error).__name__}: {text}"


def check_kind(field: str, value: Any, kind: type | tuple[type, ...], expected: str) -> None:
    """Raises `InputError` for an argument of another type."""
    if not isinstance(value, kind):
        raise InputError(field, value, expected)


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names for a message: the first few, and how many more there are."""
    more = len(names) - most
    return ", ".join(map(visible, names[:most])) + (f" and {more:,} more" if more > 0 else "")


def did_you_mean(value: Any, known: Iterable[str]) -> str:
    """The sentence that names what was meant, perhaps; empty where nothing known is like it."""
    near = difflib.get_close_matches(str(value).lower(), list(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else ""
