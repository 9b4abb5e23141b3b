"""Keeps the command working if its output fails: a full disk, a pipe without reader, a closed terminal.

The work goes on and its files are written. When the command is done, a message and the exit code report an
error of standard output. Errors of standard error are ignored, because it only shows progress.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

from fedtlu_fast.errors import FedtluError, InputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

BROKEN_PIPE = 141
"""Exit code of a command whose reader went away, as if the signal SIGPIPE had ended it."""


class Output(io.RawIOBase):
    """A file descriptor that discards all output after its first error.

    Attributes:
        error: the first error, or None.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.error: OSError | None = None

    def fileno(self) -> int:
        """See `io.RawIOBase.fileno`."""
        return self.descriptor

    def isatty(self) -> bool:
        """See `io.RawIOBase.isatty`."""
        return os.isatty(self.descriptor)

    def writable(self) -> bool:
        """See `io.RawIOBase.writable`."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """See `io.RawIOBase.write`."""
        while self.error is None:
            try:
                return os.write(self.descriptor, data)
            except BlockingIOError:  # another program has made the terminal or pipe non-blocking
                time.sleep(0.01)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


def take_over() -> Output | None:
    """Puts `Output` under the process's streams; None if standard output has no descriptor (in tests).

    Raises:
        InputError: Standard output is closed.
    """
    for descriptor in (0, 2):
        # Otherwise a file that is opened later would get this number and receive text for the terminal.
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr, _ = _over(2, sys.stderr)
    if sys.stdout is None:
        os.open(os.devnull, os.O_WRONLY)
        raise InputError("standard output", "closed", "a terminal, a file or a pipe", "Use > /dev/null.")
    if sys.stdout is not sys.__stdout__:
        return None
    sys.stdout, output = _over(1, sys.stdout)
    return output


def finish(output: Output | None, code: int) -> int:
    """Flushes the output of a command, and returns its exit code.

    Args:
        output: the result of `take_over`.
        code: the exit code so far.

    Raises:
        FedtluError: Not everything could be written.
    """
    sys.stdout.flush()
    if output is None or output.error is None or code:
        return code
    if output.error.errno in (errno.EPIPE, errno.ECONNRESET):
        return BROKEN_PIPE
    raise FedtluError(f"standard output could not be written: {output.error.strerror}")


def reader_is_gone() -> bool:
    """Flushes standard output, and tells whether it can no longer be written, as if a pipe has no reader."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, Output) and raw.error is not None


def _over(descriptor: int, stream: TextIO | None) -> tuple[TextIO, Output]:
    output = Output(descriptor)
    text = io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=stream.encoding if stream is not None else "utf-8",
        errors="replace",  # a character that the terminal cannot show must not be an error
        line_buffering=descriptor == 2 or output.isatty(),
        write_through=descriptor == 2,
    )
    return text, output


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
